//! `drystone serve`: the layout as a registry.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use oci::Registry;
use registry_server::Options;
use store::Layout;
use tokio::net::TcpListener;

use crate::args::Serve;
use crate::failure::Failure;
use crate::session;

/// Runs the command.
#[expect(clippy::print_stderr, reason = "this is the command line")]
pub fn run(arguments: &Serve) -> Result<(), Failure> {
    let layout = if arguments.read_only {
        Layout::open(&arguments.layout.layout)?
    } else {
        Layout::open_or_create(&arguments.layout.layout)?
    };
    let options = Options { read_only: arguments.read_only, ..Options::new(name(arguments)?) };
    let interrupt = session::stop_on_signals()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::of)?;
    runtime.block_on(async {
        let listener = TcpListener::bind(arguments.listen).await.map_err(|error| {
            let text = format!("cannot listen at {}: {error}", arguments.listen);
            Failure::with_hint(text, "choose another address with --listen")
        })?;
        let address = listener.local_addr().map_err(Failure::of)?;
        eprintln!("serving {} at http://{address} as {}", layout.root().display(), options.name);
        let router = registry_server::router(Arc::new(layout), options);
        let stopped = async move {
            while !interrupt.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        registry_server::serve(listener, router, stopped).await.map_err(Failure::of)
    })
}

fn name(arguments: &Serve) -> Result<Registry, Failure> {
    match &arguments.name {
        Some(name) => Ok(name.clone()),
        None => {
            let text = format!("localhost:{}", arguments.listen.port());
            text.parse().map_err(|_| Failure::Usage(format!("`{text}` cannot name a registry: give one with --name")))
        }
    }
}
