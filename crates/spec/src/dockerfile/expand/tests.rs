//! Words of Dockerfiles and what they become: quotes, escapes, and every form of a variable.

use super::*;

fn scope() -> Scope {
    Scope::new('\\').with_environment(
        [
            ("HOME", "/root"),
            ("NAME", "drystone"),
            ("EMPTY", ""),
            ("BLANKS", "one  two"),
            ("PATHS", "/usr/lib/x.tar.gz"),
            ("STARS", "a*b?c"),
            ("ABAB", "abab"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    )
}

#[test]
fn words_are_read_with_quotes_escapes_and_variables() {
    let cases = [
        ("plain", "plain"),
        ("$NAME", "drystone"),
        ("${NAME}", "drystone"),
        ("x${NAME}y", "xdrystoney"),
        ("$NAMEs", ""),
        ("$NAME/s", "drystone/s"),
        ("'$NAME'", "$NAME"),
        ("\"$NAME\"", "drystone"),
        ("\"a'b\"", "a'b"),
        ("'a\"b'", "a\"b"),
        ("\\$NAME", "$NAME"),
        ("\"\\$NAME\"", "$NAME"),
        ("\\\\$NAME", "\\drystone"),
        ("a\\bc", "abc"),
        ("\"a\\bc\"", "a\\bc"),
        ("'a\\bc'", "a\\bc"),
        ("\"a\\\"c\"", "a\"c"),
        ("he\"'\"llo", "he'llo"),
        ("end\\", "end"),
        ("$", "$"),
        ("a$", "a$"),
        ("$.", "$."),
        ("a$b", "a"),
        ("$9x", "x"),
        ("$12x", "x"),
        ("$@x", "x"),
        ("${EMPTY}", ""),
        ("${NONE}", ""),
        ("${NONE:-else}", "else"),
        ("${NONE-else}", "else"),
        ("${EMPTY:-else}", "else"),
        ("${EMPTY-else}", ""),
        ("${NAME:-else}", "drystone"),
        ("${NONE:-}", ""),
        ("${NONE:+set}", ""),
        ("${NONE+set}", ""),
        ("${EMPTY:+set}", ""),
        ("${EMPTY+set}", "set"),
        ("${NAME:+set}", "set"),
        ("${NAME?no}", "drystone"),
        ("${EMPTY?no}", ""),
        ("${NONE:-${NAME}}", "drystone"),
        ("${NONE:-$NAME}x", "drystonex"),
        ("${NONE:-a b}", "a b"),
        ("${NONE:-'}'}", "}"),
        ("${NONE:-\\}}", "}"),
        ("\"${NONE:-x y}\"", "x y"),
        ("\\${NAME}", "${NAME}"),
        ("€${NAME}ü", "€drystoneü"),
        ("$NAME$NAME", "drystonedrystone"),
        ("'quo'ted", "quoted"),
        ("a b", "a b"),
        ("BLANKS=$BLANKS", "BLANKS=one  two"),
        ("${NONE:-http://a:b}", "http://a:b"),
    ];
    for (text, expected) in cases {
        assert_eq!(scope().expand_str(text).unwrap().text, expected, "{text}");
    }
}

#[test]
fn parts_of_values_are_taken_away_and_replaced() {
    let cases = [
        ("${PATHS#*/}", "usr/lib/x.tar.gz"),
        ("${PATHS##*/}", "x.tar.gz"),
        ("${PATHS%.*}", "/usr/lib/x.tar"),
        ("${PATHS%%.*}", "/usr/lib/x"),
        ("${PATHS#nothing}", "/usr/lib/x.tar.gz"),
        ("${PATHS%gz}", "/usr/lib/x.tar."),
        ("${PATHS#/???/}", "lib/x.tar.gz"),
        ("${NONE#*/}", ""),
        ("${ABAB#a*b}", "ab"),
        ("${ABAB##a*b}", ""),
        ("${ABAB%a*b}", "ab"),
        ("${ABAB%%a*b}", ""),
        ("${STARS#a\\*}", "b?c"),
        ("${STARS%\\?c}", "a*b"),
        ("${PATHS/lib/share}", "/usr/share/x.tar.gz"),
        ("${PATHS/\\/usr/}", "/lib/x.tar.gz"),
        ("${PATHS//\\//_}", "_usr_lib_x.tar.gz"),
        ("${PATHS/./-}", "/usr/lib/x-tar.gz"),
        ("${PATHS//./-}", "/usr/lib/x-tar-gz"),
        ("${PATHS/*/x}", "x"),
        ("${ABAB/a?/x}", "xab"),
        ("${ABAB//a?/x}", "xx"),
        ("${ABAB//b}x/y}", "abab"),
        ("${ABAB//$NONE/-}", "-a-b-a-b-"),
        ("${ABAB/ab/$NAME}", "drystoneab"),
        ("${ABAB/ab/\\}}", "\\}ab"),
    ];
    for (text, expected) in cases {
        assert_eq!(scope().expand_str(text).unwrap().text, expected, "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_said() {
    let cases = [
        ("\"open", ExpandError::OpenQuote('"')),
        ("'open", ExpandError::OpenQuote('\'')),
        ("\"open\\", ExpandError::OpenQuote('"')),
        ("${NAME", ExpandError::OpenVariable('}')),
        ("${", ExpandError::OpenVariable('}')),
        ("${NAME:-x", ExpandError::OpenVariable('}')),
        ("${NAME/x", ExpandError::OpenVariable('/')),
        ("${NAME/x/y", ExpandError::OpenVariable('}')),
        ("${}", ExpandError::NoName),
        ("${{NAME}}", ExpandError::NoName),
        ("${:-x}", ExpandError::NoName),
        ("${NAME:=x}", ExpandError::Modifier(":=".into())),
        ("${NAME:#x}", ExpandError::Modifier(":#".into())),
        ("${NAME=x}", ExpandError::Modifier("=".into())),
        ("${NAME^^}", ExpandError::Modifier("^".into())),
        ("${NAME#\\x}", ExpandError::PatternEscape('x')),
        ("${NONE?}", ExpandError::Required { name: "NONE".into(), message: "has no value".into() }),
        ("${NONE:?why not}", ExpandError::Required { name: "NONE".into(), message: "has no value: why not".into() }),
        ("${EMPTY:?}", ExpandError::Required { name: "EMPTY".into(), message: "is empty".into() }),
    ];
    for (text, expected) in cases {
        assert_eq!(scope().expand_str(text).unwrap_err(), expected, "{text}");
    }
    assert_eq!(scope().expand_str(&"${A:-".repeat(100_000)).unwrap_err(), ExpandError::TooDeep);
}

#[test]
fn words_end_at_blanks_that_are_not_quoted() {
    let cases: &[(&str, &[&str])] = &[
        ("a b  c", &["a", "b", "c"]),
        (" a ", &["a"]),
        ("\"a b\" c", &["a b", "c"]),
        ("a\\ b c", &["a b", "c"]),
        ("$BLANKS", &["one", "two"]),
        ("\"$BLANKS\"", &["one  two"]),
        ("x$BLANKS", &["xone", "two"]),
        ("$EMPTY", &[]),
        ("", &[]),
        ("'a'b", &["ab"]),
    ];
    for (text, expected) in cases {
        assert_eq!(Lexer::new('\\').words(text, &scope()).unwrap(), *expected, "{text}");
    }
}

#[test]
fn another_escape_character_makes_a_letter_of_the_backslash() {
    let windows = Scope::new('`').with_environment([("NAME".to_owned(), "x".to_owned())]);
    for (text, expected) in [("c:\\dir\\$NAME", "c:\\dir\\x"), ("`$NAME", "$NAME"), ("\"a`\"b\"", "a\"b")] {
        assert_eq!(windows.expand_str(text).unwrap().text, expected, "{text}");
    }
}

#[test]
fn names_without_a_value_are_remembered_unless_the_author_thought_of_that() {
    let cases: &[(&str, &[&str])] = &[
        ("$NONE ${NAME}", &["NONE"]),
        ("${NONE:-x}", &[]),
        ("${NONE:-$ALSO}", &["ALSO"]),
        ("${NAME:-$ALSO}", &[]),
        ("${NONE%x}", &["NONE"]),
        ("'$NONE'", &[]),
    ];
    for (text, expected) in cases {
        let unset: Vec<String> = scope().expand_str(text).unwrap().unset.into_iter().collect();
        assert_eq!(unset, *expected, "{text}");
    }
}

#[test]
fn a_value_that_doubles_ends_somewhere() {
    let mut scope = Scope::default();
    scope.set("A", "x".repeat(1000));
    let result = (0..60).try_for_each(|_| {
        let doubled = scope.expand_str("$A$A$A$A")?.text;
        scope.set("A", doubled);
        Ok(())
    });
    assert_eq!(result, Err(ExpandError::TooLong));
}
