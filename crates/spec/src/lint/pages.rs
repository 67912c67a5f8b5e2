//! The pages of the rules, as they lie in `docs/lint`.

macro_rules! page {
    ($name:literal) => {
        include_str!(concat!("../../../../docs/lint/", $name, ".md"))
    };
}

pub(super) const INVALID_SYNTAX: &str = page!("InvalidSyntax");
pub(super) const UNKNOWN_RULE: &str = page!("UnknownRule");
pub(super) const STAGE_NAME_CASING: &str = page!("StageNameCasing");
pub(super) const FROM_AS_CASING: &str = page!("FromAsCasing");
pub(super) const NO_EMPTY_CONTINUATION: &str = page!("NoEmptyContinuation");
pub(super) const CONSISTENT_INSTRUCTION_CASING: &str = page!("ConsistentInstructionCasing");
pub(super) const DUPLICATE_STAGE_NAME: &str = page!("DuplicateStageName");
pub(super) const RESERVED_STAGE_NAME: &str = page!("ReservedStageName");
pub(super) const JSON_ARGS_RECOMMENDED: &str = page!("JSONArgsRecommended");
pub(super) const MAINTAINER_DEPRECATED: &str = page!("MaintainerDeprecated");
pub(super) const UNDEFINED_ARG_IN_FROM: &str = page!("UndefinedArgInFrom");
pub(super) const UNDEFINED_VAR: &str = page!("UndefinedVar");
pub(super) const MULTIPLE_INSTRUCTIONS_DISALLOWED: &str = page!("MultipleInstructionsDisallowed");
pub(super) const WORKDIR_RELATIVE_PATH: &str = page!("WorkdirRelativePath");
pub(super) const INVALID_DEFAULT_ARG_IN_FROM: &str = page!("InvalidDefaultArgInFrom");
pub(super) const FROM_PLATFORM_FLAG_CONST_DISALLOWED: &str = page!("FromPlatformFlagConstDisallowed");
pub(super) const REDUNDANT_TARGET_PLATFORM: &str = page!("RedundantTargetPlatform");
pub(super) const SECRETS_USED_IN_ARG_OR_ENV: &str = page!("SecretsUsedInArgOrEnv");
pub(super) const LEGACY_KEY_VALUE_FORMAT: &str = page!("LegacyKeyValueFormat");
pub(super) const EXPOSE_PROTO_CASING: &str = page!("ExposeProtoCasing");
pub(super) const EXPOSE_INVALID_FORMAT: &str = page!("ExposeInvalidFormat");
pub(super) const COPY_IGNORED_FILE: &str = page!("CopyIgnoredFile");
pub(super) const INVALID_DEFINITION_DESCRIPTION: &str = page!("InvalidDefinitionDescription");
pub(super) const UNPINNED_BASE: &str = page!("UnpinnedBase");
pub(super) const APT_LISTS_LEFT_BEHIND: &str = page!("AptListsLeftBehind");
pub(super) const APT_UPDATE_ALONE: &str = page!("AptUpdateAlone");
pub(super) const APT_RECOMMENDS: &str = page!("AptRecommends");
pub(super) const APT_UPGRADE: &str = page!("AptUpgrade");
pub(super) const UNVERIFIED_PACKAGES: &str = page!("UnverifiedPackages");
pub(super) const LAYER_ONLY_DELETES: &str = page!("LayerOnlyDeletes");
pub(super) const SHELL_FORM_ENTRYPOINT: &str = page!("ShellFormEntrypoint");
pub(super) const SECRET_FILE_COPIED: &str = page!("SecretFileCopied");
pub(super) const ADD_INSTEAD_OF_COPY: &str = page!("AddInsteadOfCopy");
pub(super) const UNCHECKED_DOWNLOAD: &str = page!("UncheckedDownload");
pub(super) const PIPE_TO_SHELL: &str = page!("PipeToShell");
pub(super) const NO_DOCKERIGNORE: &str = page!("NoDockerignore");
pub(super) const LAYER_ONLY_CHANGES_OWNERS: &str = page!("LayerOnlyChangesOwners");
pub(super) const LOST_SHELL_STATE: &str = page!("LostShellState");
pub(super) const SUDO_IN_BUILD: &str = page!("SudoInBuild");
pub(super) const INSECURE_RUN: &str = page!("InsecureRun");
pub(super) const UNSIGNED_SOURCE: &str = page!("UnsignedSource");
pub(super) const EXPIRED_INDEX_ALLOWED: &str = page!("ExpiredIndexAllowed");
pub(super) const PACKAGES_BY_COMMAND: &str = page!("PackagesByCommand");
pub(super) const MOVING_TAG: &str = page!("MovingTag");
