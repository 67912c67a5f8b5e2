//! What the C library's allocator is asked for.
#![expect(unsafe_code, reason = "mallopt takes two numbers, and libc has no safe form of it")]

/// Lets threads share as many arenas as there are processors. glibc gives every thread one of its own, up to eight for
/// each processor, and keeps what was freed in it: a build of many images would take twice the memory. See mallopt(3),
/// `M_ARENA_MAX`.
///
/// It is here since it is no safe call; it concerns threads that are started afterwards.
pub fn share_arenas() {
    #[cfg(target_env = "gnu")]
    {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let arenas = libc::c_int::try_from(processors.max(2)).unwrap_or(libc::c_int::MAX);
        // SAFETY: it takes two numbers, and sets a limit that the allocator reads under its own lock. If it does not know
        // the first, it says so and nothing changes, which is as good.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
    }
}
