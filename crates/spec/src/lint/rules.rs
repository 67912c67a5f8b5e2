//! The table of rules.
//!
//! A number is never given to another rule. Below 100 are the rules about the language itself, from 101 on those that
//! BuildKit has too, under its names, from 201 on those for Dockerfiles and specs that this product adds, and from 301
//! on those for families.

use super::Severity;

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// Its number, which stays the same for ever.
    pub number: u16,
    /// Its name.
    pub name: &'static str,
    /// How much its findings matter.
    pub severity: Severity,
    /// Whether it is looked at without being asked for.
    pub is_default: bool,
    /// What it says, in one sentence.
    pub summary: &'static str,
    /// Its page, in Markdown: why, an example, and what to write instead.
    pub page: &'static str,
}

impl Rule {
    /// The number as it is written: `DS101`.
    pub fn code(&self) -> String {
        format!("DS{:03}", self.number)
    }

    /// Whether BuildKit has it too.
    pub fn is_of_buildkit(&self) -> bool {
        (101..=200).contains(&self.number)
    }

    /// The rule of this number or name.
    pub fn find(name: &str) -> Option<&'static Self> {
        RULES.iter().copied().find(|rule| rule.is_called(name))
    }

    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name) || self.code().eq_ignore_ascii_case(name)
    }
}

/// Rules of BuildKit that need the base image, which is not asked for here; their names may stand in `# check=`.
pub(super) const ELSEWHERE: [&str; 1] = ["InvalidBaseImagePlatform"];

macro_rules! rules {
    ($($id:ident = $number:literal $name:ident $severity:ident $default:literal $summary:literal;)*) => {
        $(
            pub(super) static $id: Rule = Rule {
                number: $number,
                name: stringify!($name),
                severity: Severity::$severity,
                is_default: $default,
                summary: $summary,
                page: super::pages::$id,
            };
        )*

        /// All rules, by number.
        pub static RULES: &[&Rule] = &[$(&$id),*];
    };
}

rules! {
    INVALID_SYNTAX = 1 InvalidSyntax Error true "The file can be read.";
    UNKNOWN_RULE = 2 UnknownRule Warning true "`# check=` names rules that exist.";

    STAGE_NAME_CASING = 101 StageNameCasing Warning true "Names of stages are in lower case.";
    FROM_AS_CASING = 102 FromAsCasing Warning true "`AS` is written in the letters of its `FROM`.";
    NO_EMPTY_CONTINUATION = 103 NoEmptyContinuation Warning true "A continued line has no empty lines in it.";
    CONSISTENT_INSTRUCTION_CASING = 104 ConsistentInstructionCasing Warning true
        "All instructions are in upper case, or all in lower case.";
    DUPLICATE_STAGE_NAME = 105 DuplicateStageName Error true "No two stages have the same name.";
    RESERVED_STAGE_NAME = 106 ReservedStageName Warning true "No stage has a name that means something else.";
    JSON_ARGS_RECOMMENDED = 107 JSONArgsRecommended Warning true
        "`CMD` and `ENTRYPOINT` are JSON lists, so that signals reach the program.";
    MAINTAINER_DEPRECATED = 108 MaintainerDeprecated Warning true "A label names the author, not `MAINTAINER`.";
    UNDEFINED_ARG_IN_FROM = 109 UndefinedArgInFrom Warning true "Variables of `FROM` are declared before it.";
    UNDEFINED_VAR = 110 UndefinedVar Warning true "Variables are declared before they are used.";
    MULTIPLE_INSTRUCTIONS_DISALLOWED = 111 MultipleInstructionsDisallowed Warning true
        "A stage has one `CMD`, one `ENTRYPOINT` and one `HEALTHCHECK`.";
    WORKDIR_RELATIVE_PATH = 112 WorkdirRelativePath Warning true "The first `WORKDIR` of a stage is absolute.";
    INVALID_DEFAULT_ARG_IN_FROM = 113 InvalidDefaultArgInFrom Warning true
        "With the defaults of its arguments, `FROM` names an image.";
    FROM_PLATFORM_FLAG_CONST_DISALLOWED = 114 FromPlatformFlagConstDisallowed Warning true
        "`FROM --platform` is not fixed to one platform.";
    REDUNDANT_TARGET_PLATFORM = 115 RedundantTargetPlatform Warning true
        "`--platform=$TARGETPLATFORM` is what is done anyway.";
    SECRETS_USED_IN_ARG_OR_ENV = 116 SecretsUsedInArgOrEnv Warning true "`ARG` and `ENV` hold no secrets.";
    LEGACY_KEY_VALUE_FORMAT = 117 LegacyKeyValueFormat Warning true "`ENV` and `LABEL` are written with `=`.";
    EXPOSE_PROTO_CASING = 118 ExposeProtoCasing Warning true "Protocols of `EXPOSE` are in lower case.";
    EXPOSE_INVALID_FORMAT = 119 ExposeInvalidFormat Warning true "`EXPOSE` names ports of the container only.";
    COPY_IGNORED_FILE = 120 CopyIgnoredFile Warning true "What `.dockerignore` leaves out is not copied.";
    INVALID_DEFINITION_DESCRIPTION = 121 InvalidDefinitionDescription Warning false
        "A comment right above an `ARG` or a stage begins with its name.";

    UNPINNED_BASE = 201 UnpinnedBase Warning true "A base image is named by its digest.";
    APT_LISTS_LEFT_BEHIND = 202 AptListsLeftBehind Warning true "Lists of packages do not stay in a layer.";
    APT_UPDATE_ALONE = 203 AptUpdateAlone Warning true "`apt-get update` and `install` are one step.";
    APT_RECOMMENDS = 204 AptRecommends Warning true "`apt-get install` takes no recommended packages along.";
    APT_UPGRADE = 205 AptUpgrade Warning true "A newer base is built on, instead of upgrading an older one.";
    UNVERIFIED_PACKAGES = 206 UnverifiedPackages Warning true "The signatures of packages are verified.";
    LAYER_ONLY_DELETES = 207 LayerOnlyDeletes Warning true "What is removed was not in a layer below.";
    SHELL_FORM_ENTRYPOINT = 208 ShellFormEntrypoint Warning true "`ENTRYPOINT` is a list, so that it sees `CMD`.";
    SECRET_FILE_COPIED = 209 SecretFileCopied Warning true "Files that hold secrets are not copied.";
    ADD_INSTEAD_OF_COPY = 210 AddInsteadOfCopy Warning true "Plain files are copied, not added.";
    UNCHECKED_DOWNLOAD = 211 UncheckedDownload Warning true "What is fetched is checked against a digest.";
    PIPE_TO_SHELL = 212 PipeToShell Warning true "No downloaded text goes to a shell at once.";
    NO_DOCKERIGNORE = 213 NoDockerignore Warning true "Where the whole context is copied, a `.dockerignore` guards it.";
    LAYER_ONLY_CHANGES_OWNERS = 214 LayerOnlyChangesOwners Warning true
        "Owners and modes are given when files are copied.";
    LOST_SHELL_STATE = 215 LostShellState Warning true "No step only changes its own shell.";
    SUDO_IN_BUILD = 216 SudoInBuild Warning true "`USER` says who runs a command, not `sudo`.";
    INSECURE_RUN = 217 InsecureRun Warning true "No command of the build gets the machine's network or all rights.";

    UNSIGNED_SOURCE = 301 UnsignedSource Warning true "Someone vouches for every source of packages.";
    EXPIRED_INDEX_ALLOWED = 302 ExpiredIndexAllowed Warning true "Indexes past their date are refused.";
    PACKAGES_BY_COMMAND = 303 PackagesByCommand Warning true "Packages stand under `packages`, not in `run`.";
    MOVING_TAG = 304 MovingTag Warning true "A family's tag says which version it is.";
}
