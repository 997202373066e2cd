//! libvirt's event loop and callbacks, with [`crate::counter`] the one place with `unsafe`: the `virt` crate has the event
//! loop but no domain, network or close events.
//!
//! Called by [`super::link`] only. Says *that* something happened, never what: whoever is told looks. That a domain was
//! rebooted cannot be looked up in libvirt, and is kept in [`super::reboots`] for that look.
#![allow(unsafe_code)] // Registering C callbacks has no safe form.

use std::ffi::c_void;
use std::os::raw::c_int;
use std::ptr;
use std::sync::OnceLock;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use tokio::sync::watch;
use uuid::Uuid;
use virt::connect::Connect;
use virt::error::Error;
use virt::sys;

use super::reboots::Reboots;

/// What the callbacks do.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    /// Counts up on every event.
    pub changes: watch::Sender<u64>,
    /// Told of the connection itself.
    pub answers: watch::Sender<super::Answers>,
    /// Keeps when domains were rebooted.
    pub reboots: Reboots,
    /// Told when the connection is closed by the other side.
    pub closed: SyncSender<super::link::Message>,
}

/// Registered callbacks. Dropped before the connection, or the connection is never closed.
pub(super) struct Subscription {
    connect: Connect,
    domain: Option<c_int>,
    reboot: Option<c_int>,
    network: Option<c_int>,
    close: bool,
}

/// Starts libvirt's event loop once in this process. Must come before the first connection.
pub(super) fn start_loop() -> Result<(), Error> {
    static STARTED: OnceLock<Result<(), Error>> = OnceLock::new();
    STARTED
        .get_or_init(|| {
            virt::error::clear_error_callback();
            virt::event::event_register_default_impl()?;
            let run = || {
                loop {
                    if let Err(error) = virt::event::event_run_default_impl() {
                        tracing::error!(%error, "libvirt's event loop failed");
                        std::thread::sleep(std::time::Duration::from_secs(1));
                    }
                }
            };
            if let Err(error) = std::thread::Builder::new().name("libvirt-events".into()).spawn(run) {
                tracing::error!(%error, "cannot start the thread of libvirt's events");
            }
            Ok(())
        })
        .clone()
}

impl Subscription {
    /// Registers for domain, reboot, network and close events. What a driver lacks is left out.
    pub fn new(connect: &Connect, listener: &Listener) -> Self {
        let conn = connect.clone();
        // SAFETY: `conn` is open and outlives the registrations, which `drop` takes back first. Each
        // `opaque` is a box of its own that libvirt frees through `free_listener`, exactly once. The
        // casts give back to the callbacks the types that libvirt documents for these event ids.
        unsafe {
            let lifecycle: unsafe extern "C" fn(
                sys::virConnectPtr,
                sys::virDomainPtr,
                c_int,
                c_int,
                *mut c_void,
            ) -> c_int = on_domain;
            let domain = sys::virConnectDomainEventRegisterAny(
                conn.as_ptr(),
                ptr::null_mut(),
                sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int,
                Some(std::mem::transmute::<
                    unsafe extern "C" fn(
                        sys::virConnectPtr,
                        sys::virDomainPtr,
                        c_int,
                        c_int,
                        *mut c_void,
                    ) -> c_int,
                    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void),
                >(lifecycle)),
                boxed(listener),
                Some(free_listener),
            );
            let reboot = sys::virConnectDomainEventRegisterAny(
                conn.as_ptr(),
                ptr::null_mut(),
                sys::VIR_DOMAIN_EVENT_ID_REBOOT as c_int,
                Some(on_reboot),
                boxed(listener),
                Some(free_listener),
            );
            let network = sys::virConnectNetworkEventRegisterAny(
                conn.as_ptr(),
                ptr::null_mut(),
                sys::VIR_NETWORK_EVENT_ID_LIFECYCLE as c_int,
                Some(std::mem::transmute::<
                    unsafe extern "C" fn(sys::virConnectPtr, sys::virNetworkPtr, c_int, c_int, *mut c_void),
                    unsafe extern "C" fn(sys::virConnectPtr, sys::virNetworkPtr, *mut c_void),
                >(on_network)),
                boxed(listener),
                Some(free_listener),
            );
            let close = sys::virConnectRegisterCloseCallback(
                conn.as_ptr(),
                Some(on_close),
                boxed(listener),
                Some(free_listener),
            );
            Self {
                connect: conn,
                domain: (domain >= 0).then_some(domain),
                reboot: (reboot >= 0).then_some(reboot),
                network: (network >= 0).then_some(network),
                close: close >= 0,
            }
        }
    }

    /// Whether domain events come.
    pub fn has_domain_events(&self) -> bool {
        self.domain.is_some()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // SAFETY: the connection is still held by `self`; the ids came from it and are used once.
        // On a broken connection the calls fail, which changes nothing: libvirt frees them with it.
        unsafe {
            for id in [self.domain, self.reboot].into_iter().flatten() {
                sys::virConnectDomainEventDeregisterAny(self.connect.as_ptr(), id);
            }
            if let Some(id) = self.network {
                sys::virConnectNetworkEventDeregisterAny(self.connect.as_ptr(), id);
            }
            if self.close {
                sys::virConnectUnregisterCloseCallback(self.connect.as_ptr(), Some(on_close));
            }
        }
    }
}

fn boxed(listener: &Listener) -> *mut c_void {
    Box::into_raw(Box::new(listener.clone())).cast()
}

/// # Safety
/// `opaque` came from [`boxed`] and was not freed yet; libvirt promises both.
unsafe fn listener<'a>(opaque: *mut c_void) -> &'a Listener {
    // SAFETY: the caller's promise.
    unsafe { &*opaque.cast::<Listener>() }
}

fn count(listener: &Listener) {
    listener.changes.send_modify(|count| *count += 1);
}

unsafe extern "C" fn on_domain(
    _: sys::virConnectPtr,
    _: sys::virDomainPtr,
    _: c_int,
    _: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: registered with a box of a listener.
    count(unsafe { listener(opaque) });
    0
}

unsafe extern "C" fn on_reboot(_: sys::virConnectPtr, domain: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: registered with a box of a listener.
    let listener = unsafe { listener(opaque) };
    let mut uuid = [0_u8; sys::VIR_UUID_BUFLEN as usize];
    // SAFETY: libvirt keeps the domain for as long as this call takes, and writes as many bytes as there are.
    if unsafe { sys::virDomainGetUUID(domain, uuid.as_mut_ptr()) } == 0 {
        listener.reboots.note(Uuid::from_bytes(uuid), Instant::now());
    }
    // Behind that: who looks now sees it.
    count(listener);
}

unsafe extern "C" fn on_network(
    _: sys::virConnectPtr,
    _: sys::virNetworkPtr,
    _: c_int,
    _: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: registered with a box of a listener.
    count(unsafe { listener(opaque) });
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, _: c_int, opaque: *mut c_void) {
    // SAFETY: registered with a box of a listener.
    let listener = unsafe { listener(opaque) };
    // A full queue already holds a reason to look at the connection.
    let _ = listener.closed.try_send(super::link::Message::Closed);
}

unsafe extern "C" fn free_listener(opaque: *mut c_void) {
    // SAFETY: libvirt calls this once, after the last callback.
    drop(unsafe { Box::from_raw(opaque.cast::<Listener>()) });
}
