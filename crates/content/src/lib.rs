//! Content addressed by its hash: the digest type, and readers and writers that compute or check digests while
//! bytes pass through them. Nothing here knows what the bytes mean.

mod digest;
mod framed;
mod hashing;
mod verifying;

pub use digest::{Algorithm, DiffId, Digest, DigestError, Hash, Sha256};
pub use framed::FramedHasher;
pub use hashing::{HashingReader, HashingWriter};
pub use verifying::VerifyingReader;
