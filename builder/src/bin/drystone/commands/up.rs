//! `drystone up`: build, and meanwhile push what is built to the family's registry (starting it if need be); list, serve.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drystone::build::Finished;
use drystone::events::Event;
use drystone::listing;
use drystone::push::{self, Outgoing, PushError, PushTotals};
use oci::Registry;
use registry_client::Client;
use registry_server::Options;
use store::Layout;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::args::{Output, Up};
use crate::commands::{build, images};
use crate::failure::Failure;
use crate::registries;
use crate::session::{self, Built, Follow, Surroundings};
use crate::{destination, metadata};

/// Runs the command.
pub fn run(arguments: &Up, output: Output) -> Result<(), Failure> {
    let destinations = &arguments.output.destinations;
    destination::check(destinations)?;
    if destination::takes_stdout(destinations) {
        let text = "`up` lists the images on standard output: name a file, or use `drystone build`";
        return Err(Failure::Usage(text.to_owned()));
    }
    session::must_be_one_image(destinations, &arguments.names, &arguments.build.set)?;
    let pushing = Pushing { arguments, running: Mutex::new(None) };
    let remote = (&arguments.caches, &arguments.registry);
    let (built, caches) = match session::build(&arguments.names, &arguments.build, remote, output, &pushing) {
        Ok((built, caches)) => (Ok(built), caches),
        Err(failure) => (Err(failure), None),
    };
    let running = pushing.running.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Some(Running { runtime, client, outgoing, pushed, embedded, registry }) = running else {
        return built.map(drop);
    };
    // No more will come.
    drop(outgoing);
    let done = runtime.block_on(async {
        let built = match built {
            Ok(built) => built,
            Err(Failure::Interrupted) => return Err(Failure::Interrupted),
            Err(failure) => {
                // What could be built goes out whole.
                let _ = pushed.await;
                return Err(failure);
            }
        };
        if !output.quiet {
            build::eprint_summary(&built);
        }
        tokio::task::block_in_place(|| built.write_to(destinations))?;
        let totals = tokio::select! {
            totals = pushed => totals.map_err(Failure::of)??,
            () = session::interrupted(&built.interrupt) => return Err(Failure::Interrupted),
        };
        let images: Vec<Outgoing> = built.named.iter().filter_map(outgoing_of).collect();
        let totals = push::push_statements(&client, &built.layout, &images, totals).await?;
        if let Some(path) = &arguments.build.metadata_file {
            metadata::write(path, (&built.images, &built.named), totals, built.started.elapsed().as_secs_f64())?;
        }
        list(&built)?;
        tokio::task::block_in_place(|| session::store_results(&built, caches.as_ref()))?;
        if embedded.is_some() && !arguments.once {
            say(output, &format!("serving {registry} until Ctrl-C"));
            session::interrupted(&built.interrupt).await;
        }
        Ok(())
    });
    if let Some(embedded) = embedded {
        runtime.block_on(embedded.stop());
    }
    runtime.shutdown_timeout(Duration::from_millis(200));
    done
}

/// Sends images to the registry while others are built.
struct Pushing<'a> {
    arguments: &'a Up,
    running: Mutex<Option<Running>>,
}

struct Running {
    runtime: Runtime,
    client: Client,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    pushed: JoinHandle<Result<PushTotals, PushError>>,
    embedded: Option<Embedded>,
    registry: Registry,
}

impl Follow for Pushing<'_> {
    fn begin(&self, surroundings: &Surroundings<'_>) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::of)?;
        let running = runtime.block_on(start(self.arguments, surroundings))?;
        let (client, embedded) = running;
        let (outgoing, images) = mpsc::unbounded_channel();
        let (layout, observer) = (Arc::clone(surroundings.layout), Arc::clone(surroundings.observer));
        let pusher = client.clone();
        let pushed =
            runtime.spawn(async move { push::push_as_they_come(&pusher, &layout, images, observer.as_ref()).await });
        let registry = surroundings.registry.clone();
        let running = Running { runtime, client, outgoing, pushed, embedded, registry };
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(())
    }

    fn pushes(&self) -> bool {
        true
    }

    fn finished(&self, image: &Finished) {
        let Some(outgoing) = outgoing_of(image) else { return };
        if let Some(running) = self.running.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // Where pushing failed, whoever waits for it at the end learns why.
            let _ = running.outgoing.send(outgoing);
        }
    }
}

/// An image as it goes out; nothing for one that is only a parent for others.
fn outgoing_of(image: &Finished) -> Option<Outgoing> {
    let outgoing = || Outgoing { target: image.reference.clone(), manifest: image.manifest.clone() };
    (!image.build_only).then(outgoing)
}

/// Starts the registry if need be, and makes sure that there is one.
async fn start(arguments: &Up, surroundings: &Surroundings<'_>) -> Result<(Client, Option<Embedded>), Failure> {
    let Surroundings { layout, registry, observer } = surroundings;
    if arguments.build.lock.offline {
        registries::must_be_here(std::iter::once(*registry))?;
    }
    let embedded = Embedded::start(registry, layout)?;
    if let Some(embedded) = &embedded {
        let text = format!("the embedded registry serves {} at {}", layout.root().display(), embedded.address);
        observer.observe(Event::Note(&text));
    }
    let options = registries::options_with_kept_credentials(&arguments.registry)?;
    let client = push::client_of(layout, options, Arc::clone(observer))?;
    match client.ping(registry).await {
        Ok(()) => Ok((client, embedded)),
        Err(error) => {
            let text = format!("{registry} is not a registry that can be used: {}", drystone::error::chain(&error));
            let hint = "something else may listen there: free the port, or choose another registry with --registry";
            Err(Failure::with_hint(text, hint))
        }
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
        .named
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
