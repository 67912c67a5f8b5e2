//! Where an image is from: an in-toto statement with a SLSA provenance (version 1) that names every input of a build by
//! its digest.
//!
//! It says nothing of when, where and by whom an image was built, since images do not depend on that, and neither do the
//! bytes of the statement. Nobody signs it here; who wants to signs the artifact.

use std::path::Path;

use content::Digest;
use serde_json::{Value, json};
use spec::Step;

use crate::build::BuiltImage;
use crate::error::BuildError;
use crate::load::{DOCKERFILE, FAMILY_FILE, IMAGE_FILE};
use crate::plan::PlannedImage;
use crate::sbom::oci_purl;
use crate::steps::files::{Files, Inputs};

/// The media type of in-toto statements.
pub const MEDIA_TYPE: &str = "application/vnd.in-toto+json";
/// What kind of build this is, for whoever reads the parameters.
const BUILD_TYPE: &str = "urn:drystone:family:1";

/// The provenance of an image, as canonical JSON. `parent` is the image that it is built on.
pub fn provenance(
    planned: &PlannedImage<'_>,
    built: &BuiltImage,
    parent: Option<&BuiltImage>,
    inputs: &Inputs<'_>,
) -> Result<Vec<u8>, BuildError> {
    let platform = built.config.platform();
    let mut resolved = Vec::new();
    if let Some(parent) = parent {
        let architecture = parent.config.platform().architecture;
        let purl = oci_purl(parent.name.as_str(), parent.manifest.digest, &architecture);
        resolved.push(input(&purl, parent.manifest.digest, None));
    }
    if let Some(base) = &planned.base {
        resolved.push(input(&format!("docker://{}", base.written), base.digest, None));
    }
    for package in planned.packages.values().flatten() {
        let purl = crate::sbom::deb_file(&package.name, &package.version, &package.architecture);
        resolved.push(input(&purl, package.sha256, None));
    }
    let of_image = |file: &str| format!("{}/{file}", built.name);
    let specs = [FAMILY_FILE.to_owned(), of_image(IMAGE_FILE), of_image(DOCKERFILE)];
    for name in specs.iter().filter(|name| inputs.family.join(name).is_file()) {
        resolved.push(input(&format!("file:{name}"), digest_of(&inputs.family.join(name))?, None));
    }
    for step in &planned.image.steps {
        let Step::Files(entries) = step else { continue };
        for (target, digest) in Files::read(entries, inputs)?.contents() {
            resolved.push(input(
                &format!("file:{}{target}", built.name),
                digest,
                Some("laid at this path of the image"),
            ));
        }
    }
    // What a step is called follows from all that it depends on, commands and files included.
    let steps: Vec<Value> = built.steps.iter().map(|step| json!({"kind": step.kind, "key": step.id})).collect();
    let version = env!("CARGO_PKG_VERSION");
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{
            "name": built.reference.repository().as_str(),
            "digest": {"sha256": built.manifest.digest.hex()},
        }],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"image": built.name.as_str(), "platform": platform.to_string()},
                "internalParameters": {"steps": steps},
                "resolvedDependencies": resolved,
            },
            "runDetails": {"builder": {"id": "urn:drystone", "version": {"drystone": version}}},
        },
    });
    Ok(oci::canonical_bytes(&statement).expect("a statement has only strings and maps with string keys"))
}

fn input(uri: &str, digest: Digest, name: Option<&str>) -> Value {
    let mut input = json!({"uri": uri, "digest": {"sha256": digest.hex()}});
    if let Some(name) = name {
        input["annotations"] = json!({"use": name});
    }
    input
}

fn digest_of(path: &Path) -> Result<Digest, BuildError> {
    let read = |source| crate::load::LoadError::Read { path: path.to_owned(), source };
    Ok(Digest::of(&std::fs::read(path).map_err(read)?))
}
