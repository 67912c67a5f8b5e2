//! Debian archives and packages, as text and readers on one side and types on the other: control files, versions,
//! relations, indexes, signed `InRelease` files, a dependency solver, `.deb` archives and the dpkg database.
//! Nothing here opens a socket, starts a process or writes a file.

pub mod copyright;
pub mod deb;
pub mod deb822;
pub mod dpkg;
pub mod order;
pub mod package;
pub mod relation;
pub mod release;
pub mod signature;
pub mod solver;
pub mod version;

pub use deb::{ControlArchive, ControlFile, DataReader, DebError, DebReader};
pub use order::{configured_before, unpack_order};
pub use package::{Download, IndexError, MultiArch, Package, Priority, RelationField, parse_index};
pub use relation::{Alternatives, Comparison, Constraint, Provided, Relation, RelationError};
pub use release::{Release, ReleaseError, ReleaseFile};
pub use signature::{Keyring, KeyringError, SignatureError, Verified};
pub use solver::{PackageId, PackageRequest, PackageRequestError, Reason, Request, Resolution, ResolveError, Universe};
pub use version::{Version, VersionError};
