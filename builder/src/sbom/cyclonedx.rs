//! CycloneDX 1.6 as JSON. The image is the component that the bill is about; its properties tell of the layers.

use serde_json::{Value, json};

use super::licence::expression;
use super::{Subject, TOOL, TOOL_VERSION, sentence};
use crate::inventory::InstalledPackage;

pub fn document(subject: &Subject<'_>) -> Value {
    let layers: Vec<Value> =
        subject.inventory.layers.iter().map(|layer| property("dev.drystone:layer", &sentence(layer))).collect();
    let purl = subject.purl();
    let packages: Vec<(String, &InstalledPackage)> =
        subject.packages().map(|package| (subject.package_purl(package), package)).collect();
    let depends_on: Vec<&String> = packages.iter().map(|(purl, _)| purl).collect();
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial_number(subject),
        "version": 1,
        "metadata": {
            "timestamp": subject.created(),
            "tools": {"components": [{"type": "application", "name": TOOL, "version": TOOL_VERSION}]},
            "component": {
                "type": "container",
                "bom-ref": purl,
                "name": subject.name(),
                "version": subject.digest(),
                "purl": purl,
                "hashes": [{"alg": "SHA-256", "content": subject.digest().hex()}],
                "properties": layers,
            },
        },
        "components": packages.iter().map(|(purl, package)| component(purl, package)).collect::<Vec<_>>(),
        "dependencies": [{"ref": purl, "dependsOn": depends_on}],
    })
}

fn component(purl: &str, package: &InstalledPackage) -> Value {
    let mut properties = Vec::from_iter(package.layer.map(|layer| property("dev.drystone:layer", &layer.to_string())));
    properties.push(property("dev.drystone:source", &package.source));
    properties.push(property("dev.drystone:source-version", &package.source_version));
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        "properties": properties,
    });
    if let Some(maintainer) = &package.maintainer {
        component["supplier"] = json!({"name": maintainer.split_whitespace().collect::<Vec<_>>().join(" ")});
    }
    if let Some(expression) = expression(&package.licences) {
        component["licenses"] = json!([{"expression": expression.text}]);
    }
    component
}

fn property(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

/// A UUID of version 8, made from the image's digest.
fn serial_number(subject: &Subject<'_>) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&subject.digest().as_bytes()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("urn:uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
