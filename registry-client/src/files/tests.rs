//! Files of credentials as other tools write them, read and changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// A file with this content.
fn file(directory: &tempfile::TempDir, name: &str, content: &str) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    path
}

fn lookup(files: &CredentialFiles, wanted: &str) -> String {
    let wanted: LoginScope = wanted.parse().unwrap();
    match files.lookup(&wanted.registry, wanted.path.as_ref()) {
        Ok(Some(Credential::Password { username, password, .. })) => format!("{username}:{}", password.reveal()),
        Ok(Some(Credential::IdentityToken { token, .. })) => format!("token {}", token.reveal()),
        Ok(None) => "nobody".to_owned(),
        Err(error) => format!("error: {error}"),
    }
}

/// `user:password` as it stands in a file.
fn auth(login: &str) -> String {
    use base64::Engine;
    format!(r#"{{"auth":"{}"}}"#, base64::engine::general_purpose::STANDARD.encode(login))
}

#[test]
fn the_longest_name_wins_and_serves_no_sibling() {
    let directory = tempfile::tempdir().unwrap();
    let (all, team, app) = (auth("all:1"), auth("team:2"), auth("app:3"));
    let text = format!(
        r#"{{"auths":{{"r.example":{all},"r.example/team":{team},"r.example/team/app":{app},"r.example:5000":{app}}}}}"#
    );
    let files = CredentialFiles::new([file(&directory, "config.json", &text)]);
    for (wanted, expected) in [
        ("r.example", "all:1"),
        ("r.example/other/app", "all:1"),
        ("r.example/teams", "all:1"),
        ("r.example/team", "team:2"),
        ("r.example/team/apps", "team:2"),
        ("r.example/team/app", "app:3"),
        ("r.example/team/app/deep", "app:3"),
        ("r.example:5000/team", "app:3"),
        ("r.example:5001/team", "nobody"),
        ("s.r.example", "nobody"),
        ("xr.example", "nobody"),
    ] {
        assert_eq!(lookup(&files, wanted), expected, "{wanted}");
    }
}

#[test]
fn a_path_without_its_registry_is_known_to_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let text = format!(r#"{{"auths":{{"r.example/team":{}}}}}"#, auth("team:2"));
    let files = CredentialFiles::new([file(&directory, "config.json", &text)]);
    assert_eq!(lookup(&files, "r.example"), "nobody");
    assert_eq!(lookup(&files, "r.example/tea"), "nobody");
}

#[test]
fn every_form_of_an_entry_is_understood() {
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        r#"{{"auths":{{"https://a.example/v1/":{},"https://b.example":{},"c.example":{{"username":"u","password":"p"}},
        "d.example":{{"identitytoken":"T","auth":""}},"e.example":{{}},"https://index.docker.io/v1/":{},
        "f.example":{{"auth":"eDp5AAAA"}}}}}}"#,
        auth("a:p:with:colons"),
        auth("b:"),
        auth("hub:1")
    );
    let files = CredentialFiles::new([file(&directory, "config.json", &text)]);
    for (wanted, expected) in [
        ("a.example/x", "a:p:with:colons"),
        ("b.example", "b:"),
        ("c.example", "u:p"),
        ("d.example/x/y", "token T"),
        ("e.example", "nobody"),
        ("docker.io/library/debian", "hub:1"),
        ("f.example", "x:y"),
    ] {
        assert_eq!(lookup(&files, wanted), expected, "{wanted}");
    }
}

#[test]
fn the_first_file_that_knows_decides_and_a_missing_one_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let first = file(&directory, "first", &format!(r#"{{"auths":{{"r.example":{}}}}}"#, auth("first:1")));
    let second =
        file(&directory, "second", &format!(r#"{{"auths":{{"r.example":{0},"s.example":{0}}}}}"#, auth("second:2")));
    let files = CredentialFiles::new([directory.path().join("missing"), first, second]);
    assert_eq!(lookup(&files, "r.example/x"), "first:1");
    assert_eq!(lookup(&files, "s.example/x"), "second:2");
}

#[test]
fn a_file_that_is_none_is_an_error_without_its_content() {
    let directory = tempfile::tempdir().unwrap();
    for (content, expected) in [
        ("{\"auths\": {\"r.example\": \"s3cret", "is no file of credentials: line 1 column"),
        ("[]", "is no file of credentials: line 1 column"),
        (r#"{"auths":{"r.example":{"auth":"s3cret"}}}"#, "the entry for r.example cannot be used"),
    ] {
        let files = CredentialFiles::new([file(&directory, "config.json", content)]);
        let said = lookup(&files, "r.example");
        assert!(said.starts_with("error: ") && said.contains(expected) && !said.contains("s3cret"), "{said}");
    }
}

#[test]
fn a_login_is_kept_for_its_owner_only_and_everything_else_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/config.json");
    let (team, all): (LoginScope, LoginScope) = ("r.example/team".parse().unwrap(), "r.example".parse().unwrap());
    let kept = keep_login(&path, &all, "user", &Secret::new("one")).unwrap();
    assert_eq!(kept, Kept::Plain(path.clone()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);

    let text = fs::read_to_string(&path).unwrap().replacen('{', "{\"proxies\": {\"default\": {}},", 1);
    fs::write(&path, text).unwrap();
    keep_login(&path, &team, "team", &Secret::new("two")).unwrap();
    keep_login(&path, &all, "user", &Secret::new("three")).unwrap();
    let found = |wanted| lookup(&CredentialFiles::new([path.clone()]), wanted);
    assert_eq!((found("r.example/x"), found("r.example/team/x")), ("user:three".to_owned(), "team:two".to_owned()));
    assert!(fs::read_to_string(&path).unwrap().contains("proxies"));

    assert_eq!(forget_login(&path, &all).unwrap(), Some(Kept::Plain(path.clone())));
    assert_eq!(forget_login(&path, &all).unwrap(), None);
    assert_eq!((found("r.example/x"), found("r.example/team/x")), ("nobody".to_owned(), "team:two".to_owned()));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn logins_at_the_same_time_are_all_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    std::thread::scope(|scope| {
        for number in 0..16 {
            let path = &path;
            scope.spawn(move || {
                let scope = format!("r{number}.example").parse().unwrap();
                keep_login(path, &scope, "user", &Secret::new(number.to_string())).unwrap();
            });
        }
    });
    let files = CredentialFiles::new([path]);
    for number in 0..16 {
        assert_eq!(lookup(&files, &format!("r{number}.example")), format!("user:{number}"));
    }
}

#[test]
fn a_helper_with_a_path_for_a_name_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let text = r#"{"credHelpers":{"r.example":"../../bin/x"}}"#;
    let files = CredentialFiles::new([file(&directory, "config.json", text)]);
    assert!(lookup(&files, "r.example").contains("which is no name"));
}

#[test]
fn a_helper_that_is_not_installed_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let text = r#"{"credsStore":"that-nobody-has"}"#;
    let files = CredentialFiles::new([file(&directory, "config.json", text)]);
    assert!(lookup(&files, "r.example").contains("`docker-credential-that-nobody-has` is not installed"));
}
