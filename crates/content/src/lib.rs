//! Content addressed by its sha256: the digest type, and readers and writers that compute or check digests while
//! bytes pass through them. Nothing here knows what the bytes mean.

mod digest;
mod framed;
mod hashing;
mod verifying;

pub use digest::{DiffId, Digest, DigestError, Sha256};
pub use framed::FramedHasher;
pub use hashing::{HashingReader, HashingWriter};
pub use verifying::VerifyingReader;
