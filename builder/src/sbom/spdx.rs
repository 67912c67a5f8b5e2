//! SPDX 2.3 as JSON. The image is one package that contains the others; its annotations tell of the layers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::licence::expression;
use super::{Subject, TOOL, TOOL_VERSION, sentence};
use crate::inventory::InstalledPackage;

const IMAGE: &str = "SPDXRef-image";

pub fn document(subject: &Subject<'_>) -> Value {
    let digest = subject.digest();
    let mut references = BTreeMap::new();
    let mut packages = vec![image(subject)];
    let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)];
    for installed in subject.packages() {
        let id = format!("SPDXRef-deb-{}-{}", plain(&installed.name), plain(&installed.architecture));
        relationships.push(relationship(IMAGE, "CONTAINS", &id));
        packages.push(package(subject, installed, &id, &mut references));
    }
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.name(),
        // Documents of one image have the same content, and so the same name.
        "documentNamespace": format!("urn:{TOOL}:spdx:{digest}"),
        "creationInfo": {"created": subject.created(), "creators": [tool()]},
        "packages": packages,
        "relationships": relationships,
    });
    if !references.is_empty() {
        let licences = references.iter().map(|(id, name)| licence(id, name));
        document["hasExtractedLicensingInfos"] = licences.collect();
    }
    document
}

fn tool() -> String {
    format!("Tool: {TOOL}-{TOOL_VERSION}")
}

fn image(subject: &Subject<'_>) -> Value {
    let annotations: Vec<Value> =
        subject.inventory.layers.iter().map(|layer| annotation(subject, &sentence(layer))).collect();
    json!({
        "SPDXID": IMAGE,
        "name": subject.name(),
        "versionInfo": subject.digest(),
        "primaryPackagePurpose": "CONTAINER",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "checksums": [{"algorithm": "SHA256", "checksumValue": subject.digest().hex()}],
        "externalRefs": [purl(&subject.purl())],
        "annotations": annotations,
    })
}

fn package(
    subject: &Subject<'_>,
    package: &InstalledPackage,
    id: &str,
    references: &mut BTreeMap<String, String>,
) -> Value {
    let licence = expression(&package.licences).map(|expression| {
        references.extend(expression.references);
        expression.text
    });
    let mut value = json!({
        "SPDXID": id,
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": licence.unwrap_or_else(|| "NOASSERTION".to_owned()),
        "copyrightText": "NOASSERTION",
        "sourceInfo": format!("built from the source package {} {}", package.source, package.source_version),
        "externalRefs": [purl(&subject.package_purl(package))],
    });
    if let Some(layer) = package.layer {
        value["annotations"] = json!([annotation(subject, &format!("layer {layer}"))]);
    }
    if let Some(maintainer) = &package.maintainer {
        value["supplier"] = format!("Organization: {}", with_address(maintainer)).into();
    }
    value
}

/// `Name <address>` as SPDX writes it.
fn with_address(maintainer: &str) -> String {
    maintainer.split_whitespace().collect::<Vec<_>>().join(" ").replace('<', "(").replace('>', ")")
}

fn purl(purl: &str) -> Value {
    json!({"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl})
}

fn annotation(subject: &Subject<'_>, comment: &str) -> Value {
    json!({"annotationType": "OTHER", "annotator": tool(), "annotationDate": subject.created(), "comment": comment})
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to})
}

fn licence(id: &str, name: &str) -> Value {
    let text = format!(
        "Debian's copyright files call this licence `{name}`; its text is in /usr/share/doc/PACKAGE/copyright of the \
         packages that are under it."
    );
    json!({"licenseId": id, "name": name, "extractedText": text})
}

/// Identifiers have letters, digits, dots and dashes.
fn plain(text: &str) -> String {
    let plain = |letter: char| match letter {
        letter if letter.is_ascii_alphanumeric() || letter == '.' || letter == '-' => letter.to_string(),
        '+' => "-plus".to_owned(),
        _ => "-".to_owned(),
    };
    text.chars().map(plain).collect()
}
