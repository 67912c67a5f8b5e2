//! Signatures made here, so that these tests run everywhere, and Debian's own where the machine has them.

use std::fs;
use std::path::Path;

use pgp::composed::{ArmorOptions, KeyType, SecretKeyParamsBuilder, SignedSecretKey, SubkeyParamsBuilder};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{SignatureConfig, Subpacket};
use pgp::ser::Serialize;
use pgp::types::{Duration, Password, SigningKey, Timestamp};

use super::*;
use pgp::packet::{SignatureType, SubpacketData};

const TEXT: &str = "Suite: test\n- dashed\nSHA256:\n 00 1 a/b\n";

fn now() -> i64 {
    i64::from(Timestamp::now().as_secs())
}

struct Maker {
    primary_signs: bool,
    subkey_signs: bool,
}

impl Maker {
    fn make(&self) -> SignedSecretKey {
        let subkey = SubkeyParamsBuilder::default()
            .key_type(KeyType::Ed25519Legacy)
            .can_sign(self.subkey_signs)
            .can_authenticate(!self.subkey_signs)
            .build()
            .unwrap();
        SecretKeyParamsBuilder::default()
            .key_type(KeyType::Ed25519Legacy)
            .can_certify(true)
            .can_sign(self.primary_signs)
            .primary_user_id("Archive <archive@example.org>".into())
            .subkey(subkey)
            .build()
            .unwrap()
            .generate(rand::thread_rng())
            .unwrap()
    }
}

fn signing_key() -> SignedSecretKey {
    Maker { primary_signs: true, subkey_signs: true }.make()
}

fn keyring(keys: &[&SignedSecretKey]) -> Keyring {
    let bytes: Vec<u8> = keys.iter().flat_map(|key| key.to_public_key().to_bytes().unwrap()).collect();
    Keyring::from_bytes(&bytes).unwrap()
}

fn sign(key: &impl SigningKey, created: i64, hash: HashAlgorithm, extra: Vec<Subpacket>) -> String {
    let mut config = SignatureConfig::v4(SignatureType::Text, key.algorithm(), hash);
    let created = Timestamp::from_secs(u32::try_from(created).unwrap());
    config.hashed_subpackets = vec![
        Subpacket::regular(SubpacketData::SignatureCreationTime(created)).unwrap(),
        Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint())).unwrap(),
    ];
    config.hashed_subpackets.extend(extra);
    let message = CleartextSignedMessage::new(TEXT, config, key, &Password::empty()).unwrap();
    message.to_armored_string(ArmorOptions::default()).unwrap()
}

fn sign_now(key: &impl SigningKey) -> String {
    sign(key, now(), HashAlgorithm::Sha512, Vec::new())
}

fn distrust(keyring: &Keyring, signed: &str, now: i64) -> Distrust {
    match keyring.verify_inline(signed.as_bytes(), now).unwrap_err() {
        SignatureError::Distrusted(problems) => problems.iter().next().unwrap().reason,
        other => panic!("expected distrust, found: {other}"),
    }
}

#[test]
fn a_good_signature_gives_the_signed_text_and_its_key() {
    let key = signing_key();
    let keyring = keyring(&[&key]);
    let verified = keyring.verify_inline(sign_now(&key.primary_key).as_bytes(), now()).unwrap();
    assert_eq!(verified.text.trim_end(), TEXT.trim_end());
    assert_eq!(verified.fingerprint, format!("{:X}", key.fingerprint()));
    let subkey = &key.secret_subkeys[0].key;
    let verified = keyring.verify_inline(sign_now(subkey).as_bytes(), now()).unwrap();
    assert_eq!(verified.fingerprint, format!("{:X}", subkey.fingerprint()));
    assert_eq!(verified.certificate, keyring.fingerprints()[0]);
}

#[test]
fn windows_line_ends_are_the_same_text() {
    let key = signing_key();
    let signed = sign_now(&key.primary_key).replace('\n', "\r\n");
    let verified = keyring(&[&key]).verify_inline(signed.as_bytes(), now()).unwrap();
    assert_eq!(verified.text.trim_end(), TEXT.trim_end());
}

#[test]
fn an_altered_text_is_not_believed() {
    let key = signing_key();
    let signed = sign_now(&key.primary_key).replace("Suite: test", "Suite: best");
    assert_eq!(distrust(&keyring(&[&key]), &signed, now()), Distrust::Altered);
}

#[test]
fn text_around_the_message_is_refused() {
    let key = signing_key();
    let keyring = keyring(&[&key]);
    let signed = sign_now(&key.primary_key);
    let again = sign_now(&key.primary_key);
    let inside = signed.replacen(BEGIN_SIGNATURE, &format!("-----BEGIN X-----\nevil: 1\n{BEGIN_SIGNATURE}"), 1);
    let cases = [
        format!("evil: 1\n{signed}"),
        format!("\n{signed}"),
        format!("{signed}evil: 1\n"),
        format!("{signed}\n\nevil: 1\n"),
        format!("{signed}{again}"),
        inside,
        signed.replace("Suite:", "-evil: 1\nSuite:"),
        signed.replace(END_SIGNATURE, ""),
        TEXT.to_owned(),
        String::new(),
    ];
    for case in cases {
        let error = keyring.verify_inline(case.as_bytes(), now()).unwrap_err();
        assert!(matches!(error, SignatureError::Frame { .. }), "{error}\n{case}");
    }
    keyring.verify_inline(format!("{signed}\n").as_bytes(), now()).unwrap();
}

#[test]
fn an_unknown_key_is_named() {
    let (signer, other) = (signing_key(), signing_key());
    let signed = sign_now(&signer.primary_key);
    let error = keyring(&[&other]).verify_inline(signed.as_bytes(), now()).unwrap_err();
    let expected = format!("signed by {:X}, of which the keyring has none", signer.fingerprint());
    assert_eq!(error.to_string(), expected);
}

#[test]
fn one_good_signature_of_several_is_enough() {
    let (known, unknown) = (signing_key(), signing_key());
    let message = CleartextSignedMessage::new_many(TEXT, |text| {
        let sign = |key: &SignedSecretKey| {
            let mut config = SignatureConfig::v4(SignatureType::Text, key.algorithm(), HashAlgorithm::Sha256);
            config.hashed_subpackets = vec![
                Subpacket::regular(SubpacketData::SignatureCreationTime(Timestamp::now()))?,
                Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint()))?,
            ];
            config.sign(&key.primary_key, &Password::empty(), text.as_bytes())
        };
        Ok(vec![sign(&unknown)?, sign(&known)?])
    });
    let signed = message.unwrap().to_armored_string(ArmorOptions::default()).unwrap();
    let verified = keyring(&[&known]).verify_inline(signed.as_bytes(), now()).unwrap();
    assert_eq!(verified.fingerprint, format!("{:X}", known.fingerprint()));
}

#[test]
fn weak_hashes_future_and_expired_signatures_do_not_count() {
    let key = signing_key();
    let keyring = keyring(&[&key]);
    let primary = &key.primary_key;
    let weak = sign(primary, now(), HashAlgorithm::Sha3_256, Vec::new());
    assert_eq!(distrust(&keyring, &weak, now()), Distrust::Hash);
    let future = sign(primary, now() + 3600, HashAlgorithm::Sha256, Vec::new());
    assert_eq!(distrust(&keyring, &future, now()), Distrust::FromTheFuture);
    let before_its_key = sign(primary, now() - 3600, HashAlgorithm::Sha256, Vec::new());
    assert_eq!(distrust(&keyring, &before_its_key, now()), Distrust::NoTime);
    let expiry = SubpacketData::SignatureExpirationTime(Duration::from_secs(60));
    let short = sign(primary, now(), HashAlgorithm::Sha256, vec![Subpacket::regular(expiry).unwrap()]);
    keyring.verify_inline(short.as_bytes(), now()).unwrap();
    assert_eq!(distrust(&keyring, &short, now() + 61), Distrust::SignatureExpired);
    let unknown = SubpacketData::Experimental(101, vec![1].into());
    let critical = sign(primary, now(), HashAlgorithm::Sha256, vec![Subpacket::critical(unknown).unwrap()]);
    assert_eq!(distrust(&keyring, &critical, now()), Distrust::Critical);
}

#[test]
fn keys_that_are_not_for_signing_do_not_count() {
    let only_subkey = Maker { primary_signs: false, subkey_signs: true }.make();
    let signed = sign_now(&only_subkey.primary_key);
    assert_eq!(distrust(&keyring(&[&only_subkey]), &signed, now()), Distrust::NotForSigning);
    let only_primary = Maker { primary_signs: true, subkey_signs: false }.make();
    let signed = sign_now(&only_primary.secret_subkeys[0].key);
    assert_eq!(distrust(&keyring(&[&only_primary]), &signed, now()), Distrust::NotForSigning);
}

#[test]
fn a_subkey_without_the_certificates_word_for_it_does_not_count() {
    let (victim, thief) = (signing_key(), signing_key());
    let mut stolen = thief.to_public_key();
    stolen.public_subkeys = victim.to_public_key().public_subkeys;
    let keyring = Keyring::from_bytes(&stolen.to_bytes().unwrap()).unwrap();
    let signed = sign_now(&victim.secret_subkeys[0].key);
    assert_eq!(distrust(&keyring, &signed, now()), Distrust::Unbound);
}

#[test]
fn a_revoked_certificate_does_not_count() {
    let key = signing_key();
    let mut public = key.to_public_key();
    let mut config = SignatureConfig::v4(SignatureType::KeyRevocation, key.algorithm(), HashAlgorithm::Sha256);
    config.hashed_subpackets = vec![
        Subpacket::regular(SubpacketData::SignatureCreationTime(Timestamp::now())).unwrap(),
        Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint())).unwrap(),
    ];
    let revocation = config.sign_key(&key.primary_key, &Password::empty(), &public.primary_key).unwrap();
    public.details.revocation_signatures.push(revocation);
    let keyring = Keyring::from_bytes(&public.to_bytes().unwrap()).unwrap();
    assert_eq!(distrust(&keyring, &sign_now(&key.primary_key), now()), Distrust::Revoked);
    assert_eq!(distrust(&keyring, &sign_now(&key.secret_subkeys[0].key), now()), Distrust::Revoked);
}

#[test]
fn an_expired_certificate_does_not_count() {
    let key = signing_key();
    let mut public = key.to_public_key();
    let user = &mut public.details.users[0];
    let mut config = user.signatures[0].config().unwrap().clone();
    let expiry = SubpacketData::KeyExpirationTime(Duration::from_secs(3600));
    config.hashed_subpackets.push(Subpacket::regular(expiry).unwrap());
    let signature = config.sign_certification(
        &key.primary_key,
        &key.primary_key.public_key(),
        &Password::empty(),
        pgp::types::Tag::UserId,
        &user.id,
    );
    user.signatures = vec![signature.unwrap()];
    let keyring = Keyring::from_bytes(&public.to_bytes().unwrap()).unwrap();
    let signed = sign_now(&key.primary_key);
    keyring.verify_inline(signed.as_bytes(), now()).unwrap();
    assert_eq!(distrust(&keyring, &signed, now() + 7200), Distrust::KeyExpired);
    assert_eq!(distrust(&keyring, &sign_now(&key.secret_subkeys[0].key), now() + 7200), Distrust::KeyExpired);
}

#[test]
fn armored_keyrings_of_several_blocks_are_read() {
    let (first, second) = (signing_key(), signing_key());
    let armored = |key: &SignedSecretKey| key.to_public_key().to_armored_string(ArmorOptions::default()).unwrap();
    let both = format!("A comment\n{}\n{}", armored(&first), armored(&second));
    let keyring = Keyring::from_bytes(both.as_bytes()).unwrap();
    assert_eq!(keyring.fingerprints().len(), 2);
    keyring.verify_inline(sign_now(&second.primary_key).as_bytes(), now()).unwrap();
}

#[test]
fn what_is_not_a_keyring_is_refused() {
    assert!(matches!(Keyring::from_bytes(b""), Err(KeyringError::Empty)));
    for bytes in [&b"hello"[..], b"\x99\x01", b"\xc6\xff\xff\xff\xff\xff", BEGIN_KEYS] {
        assert!(Keyring::from_bytes(bytes).is_err(), "{bytes:?}");
    }
    let secret = signing_key().to_bytes().unwrap();
    assert!(Keyring::from_bytes(&secret).is_err());
}

/// Debian's own files, as apt has fetched them.
#[test]
fn debians_own_releases_are_verified_and_altered_ones_are_not() {
    let lists = Path::new("/var/lib/apt/lists");
    let keys = fs::read("/usr/share/keyrings/debian-archive-keyring.gpg").expect("these tests need a Debian machine");
    let keyring = Keyring::from_bytes(&keys).unwrap();
    let mut verified_any = false;
    let entries = fs::read_dir(lists).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in entries.filter(|path| path.to_string_lossy().ends_with("_InRelease")) {
        let signed = fs::read(&path).unwrap();
        if !String::from_utf8_lossy(&signed).contains("\nOrigin: Debian\n") {
            continue;
        }
        let verified = keyring.verify_inline(&signed, now()).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let release = crate::Release::parse(&verified.text).unwrap();
        assert!(release.files().len() > 10, "{path:?}");
        let altered = String::from_utf8(signed).unwrap().replacen("Origin: Debian", "Origin: Debiam", 1);
        assert_eq!(distrust(&keyring, &altered, now()), Distrust::Altered, "{path:?}");
        verified_any = true;
    }
    assert!(verified_any, "apt has fetched none of Debian's lists: run `apt-get update`");
}
