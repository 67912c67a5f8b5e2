//! What the builder and its children tell each other, over a socket that keeps messages apart.
//!
//! Nothing here allocates on the sending side: children use it before they execute a program.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use crate::child::Step;
use crate::sys::errno_of;

/// From a child to the builder.
#[derive(Debug)]
pub(crate) enum Message {
    /// A step before the program starts was impossible. `index` says which mount, if it was one.
    Failed { step: Step, index: u32, errno: Errno },
    /// The command's system calls can be answered.
    Supervise(Supervise),
    /// The command has ended with this wait status.
    Ended(i32),
}

/// What it takes to answer for a run.
#[derive(Debug)]
pub(crate) struct Supervise {
    /// Where notifications arrive.
    pub(crate) listener: OwnedFd,
    /// The run's mount namespace. The builder could not open it itself: process 1 may not be looked into.
    pub(crate) mounts: OwnedFd,
}

const FAILED: u32 = 1;
const SUPERVISE: u32 = 2;
const ENDED: u32 = 3;

/// Tag, and two numbers whose meaning it decides.
type Raw = [u32; 4];

/// Sends a failure.
pub(crate) fn send_failure(socket: BorrowedFd<'_>, step: Step, index: u32, errno: Errno) -> Result<(), Errno> {
    send(socket, [FAILED, step as u32, index, errno.raw_os_error().cast_unsigned()], &[])
}

/// Sends a listener and a mount namespace.
pub(crate) fn send_supervise(
    socket: BorrowedFd<'_>,
    listener: BorrowedFd<'_>,
    mounts: BorrowedFd<'_>,
) -> Result<(), Errno> {
    send(socket, [SUPERVISE, 0, 0, 0], &[listener, mounts])
}

/// Sends how the command ended.
pub(crate) fn send_end(socket: BorrowedFd<'_>, status: i32) -> Result<(), Errno> {
    send(socket, [ENDED, status.cast_unsigned(), 0, 0], &[])
}

fn send(socket: BorrowedFd<'_>, words: Raw, descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut bytes = [0; size_of::<Raw>()];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::NOBUFS);
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            done => return done.map(drop),
        }
    }
}

/// Receives a message; none if every child has closed its end.
pub(crate) fn receive(socket: &OwnedFd) -> Result<Option<Message>, Errno> {
    let mut bytes = [0; size_of::<Raw>()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket.as_fd(),
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.bytes != bytes.len() || received.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::PROTO);
    }
    let mut words: Raw = [0; 4];
    for (word, place) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_ne_bytes([place[0], place[1], place[2], place[3]]);
    }
    let mut descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let mut descriptors = descriptors.next().into_iter().flatten();
    match (words, descriptors.next(), descriptors.next()) {
        ([FAILED, step, index, errno], ..) => {
            let errno = errno_of(errno.cast_signed()).ok_or(Errno::PROTO)?;
            Ok(Some(Message::Failed { step: Step::from_number(step).ok_or(Errno::PROTO)?, index, errno }))
        }
        ([SUPERVISE, ..], Some(listener), Some(mounts)) => Ok(Some(Message::Supervise(Supervise { listener, mounts }))),
        ([ENDED, status, ..], ..) => Ok(Some(Message::Ended(status.cast_signed()))),
        _ => Err(Errno::PROTO),
    }
}

/// A socket for the builder, and one for its children.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Tells a child that its builder lives and it may begin.
pub(crate) fn send_go(socket: &OwnedFd) -> Result<(), Errno> {
    rustix::net::send(socket, b"go", SendFlags::NOSIGNAL).map(drop)
}

/// Waits for the word to begin; an error if the builder is gone.
pub(crate) fn await_go(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut word = [0; 2];
    loop {
        match rustix::net::recv(socket, &mut word, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            Ok((2, _)) => return Ok(()),
            Ok(_) => return Err(Errno::PIPE),
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent_and_the_end_is_seen() {
        let (builder, child) = pair().unwrap();
        send_failure(child.as_fd(), Step::Mount, 7, Errno::NOENT).unwrap();
        send_supervise(child.as_fd(), child.as_fd(), child.as_fd()).unwrap();
        send_end(child.as_fd(), 256).unwrap();
        drop(child);
        let failed = receive(&builder).unwrap();
        assert!(matches!(failed, Some(Message::Failed { step: Step::Mount, index: 7, errno: Errno::NOENT })));
        assert!(matches!(receive(&builder).unwrap(), Some(Message::Supervise(_))));
        assert!(matches!(receive(&builder).unwrap(), Some(Message::Ended(256))));
        assert!(receive(&builder).unwrap().is_none());
    }
}
