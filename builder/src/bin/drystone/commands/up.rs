//! `drystone up`: build, push to the family's registry (starting it if need be), list, serve.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use drystone::events::Event;
use drystone::listing;
use drystone::push::{self, Outgoing};
use oci::Registry;
use registry_server::Options;
use store::Layout;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::args::{Output, Up};
use crate::commands::{build, images};
use crate::failure::Failure;
use crate::registries;
use crate::session::{self, Built};
use crate::{destination, metadata};

/// Runs the command.
pub fn run(arguments: &Up, output: Output) -> Result<(), Failure> {
    let destinations = &arguments.output.destinations;
    destination::check(destinations)?;
    if destination::takes_stdout(destinations) {
        let text = "`up` lists the images on standard output: name a file, or use `drystone build`";
        return Err(Failure::Usage(text.to_owned()));
    }
    let built = session::build(&arguments.names, &arguments.build, &arguments.registry, output)?;
    if !output.quiet {
        build::eprint_summary(&built);
    }
    built.write_to(destinations)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::of)?;
    let done = runtime.block_on(push_and_list(arguments, output, &built));
    runtime.shutdown_timeout(Duration::from_millis(200));
    done
}

async fn push_and_list(arguments: &Up, output: Output, built: &Built) -> Result<(), Failure> {
    let registry = built.images.first().map(|image| image.reference.registry().clone());
    let Some(registry) = registry else { return Err(Failure::Usage("the family has no images".to_owned())) };
    let embedded = Embedded::start(&registry, &built.layout)?;
    if let Some(embedded) = &embedded {
        let text = format!("the embedded registry serves {} at {}", built.layout.root().display(), embedded.address);
        built.observer.observe(Event::Note(&text));
    }
    let options = registries::options_with_kept_credentials(&arguments.registry)?;
    let client = push::client(options, Arc::clone(&built.observer))?;
    if let Err(error) = client.ping(&registry).await {
        let text = format!("{registry} is not a registry that can be used: {}", drystone::error::chain(&error));
        let hint = "something else may listen there: free the port, or choose another registry with --registry";
        return Err(Failure::with_hint(text, hint));
    }
    let outgoing: Vec<Outgoing> = built
        .images
        .iter()
        .filter(|image| !image.build_only)
        .map(|image| Outgoing { target: image.reference.clone(), manifest: image.manifest.clone() })
        .collect();
    let pushing = push::push(&client, &built.layout, &outgoing, built.observer.as_ref());
    let totals = tokio::select! {
        totals = pushing => totals?,
        () = session::interrupted(&built.interrupt) => return Err(Failure::Interrupted),
    };
    if let Some(path) = &arguments.build.metadata_file {
        metadata::write(path, &built.images, totals, built.started.elapsed().as_secs_f64())?;
    }
    list(built)?;
    match embedded {
        Some(embedded) if !arguments.once => {
            say(output, &format!("serving {registry} until Ctrl-C"));
            session::interrupted(&built.interrupt).await;
            embedded.stop().await;
            Ok(())
        }
        Some(embedded) => {
            embedded.stop().await;
            Ok(())
        }
        None => Ok(()),
    }
}

#[expect(clippy::print_stderr, reason = "this is the command line")]
fn say(output: Output, text: &str) {
    if !output.quiet {
        eprintln!("{text}");
    }
}

fn list(built: &Built) -> Result<(), Failure> {
    let wanted: BTreeSet<(String, String)> = built
        .images
        .iter()
        .filter(|image| !image.build_only)
        .map(|image| (image.reference.name(), image.reference.tag().map(ToString::to_string).unwrap_or_default()))
        .collect();
    let mut rows = images::readable(listing::list(&built.layout, &[])?);
    rows.retain(|row| wanted.contains(&(row.repository.clone(), row.tag.clone())));
    session::print(&images::table(&rows, session::now(), false))
}

/// The registry of this process.
struct Embedded {
    address: SocketAddr,
    servers: Vec<JoinHandle<std::io::Result<()>>>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Embedded {
    /// Starts a registry over the layout if nobody listens at that address and it is on this machine.
    fn start(registry: &Registry, layout: &Arc<Layout>) -> Result<Option<Self>, Failure> {
        if !registry.is_loopback() {
            return Ok(None);
        }
        let port = registry.port().unwrap_or(80);
        let addresses: Vec<IpAddr> = match registry.host().trim_matches(['[', ']']).parse() {
            Ok(address) => vec![address],
            Err(_) => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        };
        let mut listeners = Vec::new();
        for address in addresses {
            match std::net::TcpListener::bind((address, port)) {
                Ok(listener) => listeners.push(listener),
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => return Ok(None),
                // A machine without IPv6 has no such address; the other one will do.
                Err(_) if !listeners.is_empty() => {}
                Err(error) => return Err(Failure::new(format!("cannot listen at {address}:{port}: {error}"))),
            }
        }
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let router = registry_server::router(Arc::clone(layout), Options::new(registry.clone()));
        let address = listeners[0].local_addr().map_err(Failure::of)?;
        let mut servers = Vec::new();
        for listener in listeners {
            listener.set_nonblocking(true).map_err(Failure::of)?;
            let listener = TcpListener::from_std(listener).map_err(Failure::of)?;
            let mut stopped = stopped.clone();
            let shutdown = async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            servers.push(tokio::spawn(registry_server::serve(listener, router.clone(), shutdown)));
        }
        Ok(Some(Self { address, servers, stop }))
    }

    /// Lets requests in progress end. Connections that rest are not waited for.
    async fn stop(self) {
        let _ = self.stop.send(true);
        let all = async {
            for server in self.servers {
                let _ = server.await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(300), all).await;
    }
}
