//! Which keys of a certificate may sign, and which signatures by them count.

use std::time::Duration;

use pgp::composed::{SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::types::{Fingerprint, KeyDetails, Tag, Timestamp};

use crate::release::MAX_CLOCK_SKEW;

/// Why a signature by a known key does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Made with SHA-1, MD5 or another hash that is not accepted.
    #[error("it uses another hash than SHA-256, SHA-384 or SHA-512")]
    Hash,
    /// Not a signature over a document.
    #[error("it is not a signature over a text")]
    Kind,
    /// Something in it must be understood and is not.
    #[error("it has a critical part that is not understood")]
    Critical,
    /// It does not say when it was made, or says a time before its key was.
    #[error("it has no plausible time")]
    NoTime,
    /// It was made later than now.
    #[error("it was made in the future")]
    FromTheFuture,
    /// It says that it counts no longer.
    #[error("it has expired")]
    SignatureExpired,
    /// The certificate does not vouch for the key.
    #[error("the key is not bound to its certificate by a good signature")]
    Unbound,
    /// The key may not sign.
    #[error("the key is not meant for signing")]
    NotForSigning,
    /// The key or its certificate was revoked.
    #[error("the key was revoked")]
    Revoked,
    /// The key or its certificate has expired.
    #[error("the key has expired")]
    KeyExpired,
    /// The signature is not one over this text.
    #[error("the text or the signature was altered")]
    Altered,
}

/// A key that a signature says it was made with.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) certificate: &'a SignedPublicKey,
    /// The subkey; the primary key if there is none.
    subkey: Option<&'a SignedPublicSubKey>,
}

impl<'a> Candidate<'a> {
    /// The keys of `certificate` that match the issuer of `signature`.
    pub(super) fn of(certificate: &'a SignedPublicKey, signature: &Signature) -> Vec<Self> {
        let subkeys = certificate.public_subkeys.iter().map(|subkey| Self { certificate, subkey: Some(subkey) });
        let all = std::iter::once(Self { certificate, subkey: None }).chain(subkeys);
        all.filter(|candidate| candidate.is_issuer_of(signature)).collect()
    }

    fn is_issuer_of(&self, signature: &Signature) -> bool {
        let fingerprints = signature.issuer_fingerprint();
        if !fingerprints.is_empty() {
            return fingerprints.contains(&&self.fingerprint());
        }
        let id = match self.subkey {
            Some(subkey) => subkey.legacy_key_id(),
            None => self.certificate.legacy_key_id(),
        };
        signature.issuer_key_id().contains(&&id)
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        match self.subkey {
            Some(subkey) => subkey.fingerprint(),
            None => self.certificate.fingerprint(),
        }
    }

    /// Whether `signature` is one over `text` by this key that counts at `now`.
    pub(super) fn check(&self, signature: &Signature, text: &[u8], now: i64) -> Result<(), Distrust> {
        check_signature(signature, self.created(), now)?;
        self.check_key(now)?;
        let verified = match self.subkey {
            Some(subkey) => signature.verify(subkey, text),
            None => signature.verify(self.certificate, text),
        };
        verified.map_err(|_| Distrust::Altered)
    }

    fn created(&self) -> i64 {
        match self.subkey {
            Some(subkey) => seconds(subkey.created_at()),
            None => seconds(self.certificate.created_at()),
        }
    }

    fn check_key(&self, now: i64) -> Result<(), Distrust> {
        let may_sign = check_primary(self.certificate, now)?;
        match self.subkey {
            Some(subkey) => check_subkey(self.certificate, subkey, now),
            None if may_sign => Ok(()),
            None => Err(Distrust::NotForSigning),
        }
    }
}

fn check_signature(signature: &Signature, key_created: i64, now: i64) -> Result<(), Distrust> {
    if !matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary)) {
        return Err(Distrust::Kind);
    }
    check_hash(signature)?;
    check_critical(signature)?;
    let created = signature.created().map(seconds).filter(|&created| created >= key_created).ok_or(Distrust::NoTime)?;
    if created > now.saturating_add(MAX_CLOCK_SKEW) {
        return Err(Distrust::FromTheFuture);
    }
    if has_ended(created, signature.signature_expiration_time().map(Into::into), now) {
        return Err(Distrust::SignatureExpired);
    }
    Ok(())
}

fn check_hash(signature: &Signature) -> Result<(), Distrust> {
    match signature.hash_alg() {
        Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512) => Ok(()),
        _ => Err(Distrust::Hash),
    }
}

/// RFC 9580, 5.2.3.7: a signature with a critical subpacket that is not understood is not to be considered good.
fn check_critical(signature: &Signature) -> Result<(), Distrust> {
    let config = signature.config().ok_or(Distrust::Kind)?;
    let unknown = config.hashed_subpackets().any(|subpacket| {
        let data = &subpacket.data;
        let known =
            !matches!(data, SubpacketData::Other(..) | SubpacketData::Experimental(..) | SubpacketData::Notation(..));
        subpacket.is_critical && !known
    });
    if unknown { Err(Distrust::Critical) } else { Ok(()) }
}

/// Checks the certificate's primary key, and says whether it may sign itself.
fn check_primary(certificate: &SignedPublicKey, now: i64) -> Result<bool, Distrust> {
    let primary = &certificate.primary_key;
    // A revocation counts whatever its hash: believing too many of them is the safe side.
    if certificate.details.revocation_signatures.iter().any(|one| one.verify_key(primary).is_ok()) {
        return Err(Distrust::Revoked);
    }
    let newest = newest(self_signatures(certificate), now).ok_or(Distrust::Unbound)?;
    if has_ended(seconds(primary.created_at()), newest.key_expiration_time().map(Into::into), now) {
        return Err(Distrust::KeyExpired);
    }
    let flags = newest.key_flags();
    // Keys from before key flags have none, and may do what their algorithm can.
    let has_flags = flags.sign() || flags.certify() || flags.encrypt_comms() || flags.encrypt_storage();
    Ok(flags.sign() || !has_flags)
}

/// The good signatures of a certificate's primary key over itself and over its user ids.
fn self_signatures(certificate: &SignedPublicKey) -> Vec<&Signature> {
    let primary = &certificate.primary_key;
    let direct = certificate.details.direct_signatures.iter();
    let direct = direct.filter(|one| one.typ() == Some(SignatureType::Key) && one.verify_key(primary).is_ok());
    let mut good: Vec<_> = direct.collect();
    for user in &certificate.details.users {
        let valid = |one: &&Signature| one.verify_certification(primary, Tag::UserId, &user.id).is_ok();
        let (revocations, certifications): (Vec<_>, Vec<_>) =
            user.signatures.iter().partition(|one| one.typ() == Some(SignatureType::CertRevocation));
        if !revocations.iter().any(valid) {
            good.extend(certifications.into_iter().filter(valid));
        }
    }
    good
}

fn check_subkey(certificate: &SignedPublicKey, subkey: &SignedPublicSubKey, now: i64) -> Result<(), Distrust> {
    let primary = &certificate.primary_key;
    let valid = subkey.signatures.iter().filter(|one| one.verify_subkey_binding(primary, &subkey.key).is_ok());
    let (revocations, bindings): (Vec<_>, Vec<_>) =
        valid.partition(|one| one.typ() == Some(SignatureType::SubkeyRevocation));
    if !revocations.is_empty() {
        return Err(Distrust::Revoked);
    }
    let binding = newest(bindings, now).ok_or(Distrust::Unbound)?;
    if has_ended(seconds(subkey.created_at()), binding.key_expiration_time().map(Into::into), now) {
        return Err(Distrust::KeyExpired);
    }
    if !binding.key_flags().sign() {
        return Err(Distrust::NotForSigning);
    }
    // The subkey must vouch for the certificate, too: else anybody could claim another's signing key.
    let back = binding.embedded_signature().ok_or(Distrust::Unbound)?;
    let bound = check_hash(back).is_ok() && back.verify_primary_key_binding(&subkey.key, primary).is_ok();
    if bound { Ok(()) } else { Err(Distrust::Unbound) }
}

/// The newest of several good signatures that count at `now`.
fn newest(signatures: Vec<&Signature>, now: i64) -> Option<&Signature> {
    let counting = signatures.into_iter().filter(|one| {
        let Some(created) = one.created().map(seconds) else { return false };
        let in_time = created <= now.saturating_add(MAX_CLOCK_SKEW);
        let lasts = !has_ended(created, one.signature_expiration_time().map(Into::into), now);
        in_time && lasts && check_hash(one).is_ok() && check_critical(one).is_ok()
    });
    counting.max_by_key(|one| one.created().map(seconds))
}

/// Whether something that lasts for `lifetime` from `start` has ended; without a lifetime, or with none, it lasts.
fn has_ended(start: i64, lifetime: Option<Duration>, now: i64) -> bool {
    let lifetime = lifetime.map_or(0, |lifetime| lifetime.as_secs());
    lifetime != 0 && start.saturating_add_unsigned(lifetime) <= now
}

fn seconds(time: Timestamp) -> i64 {
    i64::from(time.as_secs())
}
