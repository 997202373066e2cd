//! Watches units over D-Bus: their state as a stream of changes, from systemd itself.
//!
//! Over the system bus, not over systemd's private socket: what comes there names a sender that is no unique name,
//! which zbus refuses. Used by health, by repair, which starts units and kills what hangs, and by
//! [`crate::processors`].

use std::io;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::time::timeout;
use zbus::{Connection, OwnedObjectPath, Variant};

/// Longest that connecting, and each call, may take: the bus itself sets no end to them.
const DEADLINE: Duration = Duration::from_secs(25);
/// The signal that nothing can refuse.
const SIGKILL: i32 = 9;
/// The one after which a stopped process goes on.
const SIGCONT: i32 = 18;

/// systemd's manager object.
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn subscribe(&self) -> zbus::Result<()>;
    fn set_unit_properties(
        &self,
        name: &str,
        runtime: bool,
        properties: Vec<(&str, Variant<'_>)>,
    ) -> zbus::Result<()>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn system_state(&self) -> zbus::Result<String>;
    fn list_units_filtered(&self, states: &[&str]) -> zbus::Result<Vec<ListedUnit>>;
}

/// Name, description, load state, active state, sub state, followed unit, path, job, its type, its path.
type ListedUnit =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// One unit.
#[zbus::proxy(interface = "org.freedesktop.systemd1.Unit", default_service = "org.freedesktop.systemd1")]
trait Unit {
    #[zbus(property)]
    fn active_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn sub_state(&self) -> zbus::Result<String>;
}

/// What a unit is besides when it is a service.
#[zbus::proxy(interface = "org.freedesktop.systemd1.Service", default_service = "org.freedesktop.systemd1")]
trait MainProcess {
    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> zbus::Result<u32>;
}

/// What systemd says of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitState {
    /// `active`, `inactive`, `failed`, `activating`, …
    pub active: String,
    /// `running`, `dead`, `auto-restart`, …
    pub sub: String,
    /// Its main process; 0 means: none.
    pub main_pid: u32,
}

/// systemd cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// No connection.
    #[error("cannot connect to systemd")]
    Connect(#[source] zbus::Error),
    /// A call failed.
    #[error("systemd does not tell about {unit}")]
    Unit {
        /// The unit.
        unit: &'static str,
        /// Why.
        #[source]
        source: zbus::Error,
    },
    /// A unit cannot be acted on.
    #[error("systemd does not {act} {unit}")]
    Act {
        /// "start"
        act: &'static str,
        /// The unit.
        unit: &'static str,
        /// Why.
        #[source]
        source: zbus::Error,
    },
    /// It does not list its units.
    #[error("systemd does not list failed units")]
    List(#[source] zbus::Error),
}

/// A connection to systemd.
#[derive(Clone, Debug)]
pub struct Systemd(Connection);

impl Systemd {
    /// Connects.
    pub async fn connect() -> Result<Self, SystemdError> {
        let slow = |_| zbus::Error::from(io::Error::from(io::ErrorKind::TimedOut));
        let connected = timeout(DEADLINE, Self::try_connect()).await;
        connected.map_err(slow).flatten().map_err(SystemdError::Connect)
    }

    async fn try_connect() -> zbus::Result<Self> {
        let connection = zbus::connection::Builder::system().method_timeout(DEADLINE).build().await?;
        ManagerProxy::new(&connection).await?.subscribe().await?;
        Ok(Self(connection))
    }

    /// What is in this slice runs on these processors, one bit each, until the next boot.
    pub async fn allow_processors(&self, slice: &'static str, mask: Vec<u8>) -> Result<(), SystemdError> {
        let failed = |source| SystemdError::Unit { unit: slice, source };
        let manager = ManagerProxy::new(&self.0).await.map_err(failed)?;
        let properties = vec![("AllowedCPUs", Variant::from(mask))];
        manager.set_unit_properties(slice, true, properties).await.map_err(failed)
    }

    /// The unit as it is, and a stream that wakes when it may have changed.
    pub async fn watch(&self, unit: &'static str) -> Result<Watched, SystemdError> {
        let failed = |source| SystemdError::Unit { unit, source };
        let manager = ManagerProxy::new(&self.0).await.map_err(failed)?;
        let path = manager.load_unit(unit).await.map_err(failed)?;
        let proxy = UnitProxy::builder(&self.0)
            .path(path)
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await
            .map_err(failed)?;
        let service = MainProcessProxy::builder(&self.0)
            .path(proxy.inner().path().to_owned())
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await
            .map_err(failed)?;
        let properties = zbus::proxy::Builder::<zbus::Proxy<'_>>::new(&self.0)
            .destination("org.freedesktop.systemd1")
            .path(proxy.inner().path().to_owned())
            .interface("org.freedesktop.DBus.Properties")
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await
            .map_err(failed)?;
        let changes = properties.receive_signal("PropertiesChanged").await.map_err(failed)?.map(drop);
        Ok(Watched { unit, proxy, service, changes: Box::pin(changes) })
    }

    /// Begins to start a unit; does not wait for it.
    pub async fn start(&self, unit: &'static str) -> Result<(), SystemdError> {
        let failed = |source| SystemdError::Act { act: "start", unit, source };
        let manager = ManagerProxy::new(&self.0).await.map_err(failed)?;
        manager.start_unit(unit, "replace").await.map(drop).map_err(failed)
    }

    /// Begins to start a unit anew, which it ends first; does not wait for it.
    pub async fn restart(&self, unit: &'static str) -> Result<(), SystemdError> {
        let failed = |source| SystemdError::Act { act: "restart", unit, source };
        let manager = ManagerProxy::new(&self.0).await.map_err(failed)?;
        manager.restart_unit(unit, "replace").await.map(drop).map_err(failed)
    }

    /// Ends a unit's main process with SIGKILL.
    pub async fn kill(&self, unit: &'static str) -> Result<(), SystemdError> {
        let failed = |source| SystemdError::Act { act: "kill", unit, source };
        let manager = ManagerProxy::new(&self.0).await.map_err(failed)?;
        manager.kill_unit(unit, "main", SIGKILL).await.map_err(failed)
    }

    /// Lets all of a unit's processes go on that were stopped by a signal.
    pub async fn let_go_on(&self, unit: &'static str) -> Result<(), SystemdError> {
        let failed = |source| SystemdError::Act { act: "continue", unit, source };
        let manager = ManagerProxy::new(&self.0).await.map_err(failed)?;
        manager.kill_unit(unit, "all", SIGCONT).await.map_err(failed)
    }

    /// Whether the machine is shutting down. Where that cannot be said, it is not.
    pub async fn is_stopping(&self) -> bool {
        let Ok(manager) = ManagerProxy::new(&self.0).await else { return false };
        manager.system_state().await.is_ok_and(|state| state == "stopping")
    }

    /// Names of the units that have failed.
    pub async fn failed_units(&self) -> Result<Vec<String>, SystemdError> {
        let manager = ManagerProxy::new(&self.0).await.map_err(SystemdError::List)?;
        let units = manager.list_units_filtered(&["failed"]).await.map_err(SystemdError::List)?;
        Ok(units.into_iter().map(|unit| unit.0).collect())
    }
}

/// A watched unit.
pub struct Watched {
    unit: &'static str,
    proxy: UnitProxy<'static>,
    service: MainProcessProxy<'static>,
    changes: std::pin::Pin<Box<dyn Stream<Item = ()> + Send>>,
}

impl Watched {
    /// Asks systemd.
    pub async fn state(&mut self) -> Result<UnitState, SystemdError> {
        let failed = |source| SystemdError::Unit { unit: self.unit, source };
        Ok(UnitState {
            active: self.proxy.active_state().await.map_err(failed)?,
            sub: self.proxy.sub_state().await.map_err(failed)?,
            main_pid: self.service.main_pid().await.map_err(failed)?,
        })
    }

    /// Waits for a change. `false` means: the connection has ended. Cancel-safe.
    pub async fn changed(&mut self) -> bool {
        self.changes.next().await.is_some()
    }
}
