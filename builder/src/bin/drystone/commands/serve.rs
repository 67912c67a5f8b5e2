//! `drystone serve`: the layout as a registry.

use std::future::Future;
use std::sync::Arc;

use oci::Registry;
use registry_server::{AccessLog, Htpasswd, Options, Tls};
use store::Layout;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::access_log;
use crate::args::{AccessLogKind, Output, Serve};
use crate::failure::Failure;

/// Runs the command.
#[expect(clippy::print_stderr, reason = "this is the command line")]
pub fn run(arguments: &Serve, output: Output) -> Result<(), Failure> {
    let options = options(arguments, output)?;
    let tls = match (&arguments.doors.tls_cert, &arguments.doors.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls::read(certificate, key).map_err(Failure::of)?),
        _ => None,
    };
    let layout = if arguments.read_only {
        Layout::open(&arguments.layout.layout)?
    } else {
        Layout::open_or_create(&arguments.layout.layout)?
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::of)?;
    let served = runtime.block_on(async {
        let stopped = stop_signal()?;
        let listener = TcpListener::bind(arguments.listen).await.map_err(|error| {
            let text = format!("cannot listen at {}: {error}", arguments.listen);
            Failure::with_hint(text, "choose another address with --listen")
        })?;
        let address = listener.local_addr().map_err(Failure::of)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        if !output.quiet {
            eprintln!("serving {} at {scheme}://{address} as {}", layout.root().display(), options.name);
            for warning in warnings(arguments) {
                eprintln!("warning: {warning}");
            }
        }
        let router = registry_server::router(Arc::new(layout), options);
        match tls {
            Some(tls) => registry_server::serve_tls(listener, tls, router, stopped).await,
            None => registry_server::serve(listener, router, stopped).await,
        }
        .map_err(Failure::of)
    });
    // What still reads or writes has had its time.
    runtime.shutdown_background();
    served
}

fn options(arguments: &Serve, output: Output) -> Result<Options, Failure> {
    let limits = &arguments.limits;
    if limits.max_manifest_size > oci::MAX_MANIFEST_SIZE {
        let text = format!("--max-manifest-size is at most {} bytes (4MiB)", oci::MAX_MANIFEST_SIZE);
        return Err(Failure::Usage(text));
    }
    let users = arguments.doors.htpasswd.as_ref().map(Htpasswd::open).transpose().map_err(|error| {
        Failure::with_hint(drystone::error::chain(&error), "make the file with `htpasswd -B -c FILE NAME`")
    })?;
    let log: Option<Arc<dyn AccessLog>> = match arguments.access_log {
        _ if output.quiet => None,
        AccessLogKind::Off => None,
        AccessLogKind::Plain => Some(Arc::new(access_log::Plain)),
        AccessLogKind::Json => Some(Arc::new(access_log::Json)),
    };
    Ok(Options {
        read_only: arguments.read_only,
        max_manifest_size: limits.max_manifest_size,
        max_blob_size: limits.max_blob_size,
        max_total_size: limits.max_total_size,
        max_uploads: limits.max_uploads as usize,
        upload_idle: limits.upload_timeout,
        users: users.map(Arc::new),
        log,
        ..Options::new(name(arguments)?)
    })
}

fn warnings(arguments: &Serve) -> Vec<&'static str> {
    let (open, plain) = (arguments.doors.htpasswd.is_none(), arguments.doors.tls_cert.is_none());
    let mut warnings = Vec::new();
    if arguments.listen.ip().is_loopback() {
        return warnings;
    }
    if open && !arguments.read_only {
        warnings.push("whoever reaches this address may push and delete: --htpasswd asks for a password");
    }
    if !open && plain {
        warnings.push("passwords cross the network as plain text: --tls-cert and --tls-key encrypt them");
    }
    warnings
}

/// Ready at the first Ctrl-C or SIGTERM; requests in progress may then end. The second one ends the process at once.
fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let mut pressed = signal(SignalKind::interrupt()).map_err(Failure::of)?;
    let mut asked = signal(SignalKind::terminate()).map_err(Failure::of)?;
    Ok(async move {
        tokio::select! { _ = pressed.recv() => {}, _ = asked.recv() => {} }
        tokio::spawn(async move {
            tokio::select! { _ = pressed.recv() => {}, _ = asked.recv() => {} }
            #[expect(clippy::exit, clippy::disallowed_methods, reason = "this is the command line")]
            std::process::exit(130);
        });
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
