//! `drystone sbom`: the bill of materials of an image.

use drystone::inventory::Inventories;
use drystone::{referrers, sbom};
use store::Layout;

use crate::args::Sbom;
use crate::commands::inspect::find;
use crate::failure::Failure;
use crate::session::print;

/// Runs the command.
pub fn run(arguments: &Sbom) -> Result<(), Failure> {
    let layout = Layout::open(&arguments.layout.layout)?;
    let image = find(&layout, &arguments.image, &arguments.platform.chosen())?;
    let about = referrers::of(&referrers::all(&layout)?, image.descriptor.digest);
    let kept = referrers::statement(&layout, &about, arguments.format.media_type())?;
    let bytes = match kept {
        Some(kept) => kept,
        None => {
            let inventory = Inventories::new(&layout).image(&image).map_err(Failure::of)?;
            sbom::bill(arguments.format, &image, &inventory)
        }
    };
    let text = String::from_utf8(bytes).map_err(Failure::of)?;
    print(&(text.trim_end().to_owned() + "\n"))
}
