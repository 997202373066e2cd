//! Watches units over D-Bus: their state as a stream of changes, from systemd itself.
//!
//! Over the system bus, not over systemd's private socket: what comes there names a sender that is no unique name,
//! which zbus refuses. Used by health and by [`crate::processors`]. Starting and stopping is the steps' business.

use futures::{Stream, StreamExt};
use zbus::{Connection, OwnedObjectPath, Variant};

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
}

/// One unit.
#[zbus::proxy(interface = "org.freedesktop.systemd1.Unit", default_service = "org.freedesktop.systemd1")]
trait Unit {
    #[zbus(property)]
    fn active_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn sub_state(&self) -> zbus::Result<String>;
}

/// What systemd says of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitState {
    /// `active`, `inactive`, `failed`, `activating`, …
    pub active: String,
    /// `running`, `dead`, `auto-restart`, …
    pub sub: String,
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
}

/// A connection to systemd.
#[derive(Clone, Debug)]
pub struct Systemd(Connection);

impl Systemd {
    /// Connects.
    pub async fn connect() -> Result<Self, SystemdError> {
        let connection = Connection::system().await.map_err(SystemdError::Connect)?;
        let manager = ManagerProxy::new(&connection).await.map_err(SystemdError::Connect)?;
        manager.subscribe().await.map_err(SystemdError::Connect)?;
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
        let properties = zbus::proxy::Builder::<zbus::Proxy<'_>>::new(&self.0)
            .destination("org.freedesktop.systemd1")
            .path(proxy.inner().path().to_owned())
            .interface("org.freedesktop.DBus.Properties")
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await
            .map_err(failed)?;
        let changes = properties.receive_signal("PropertiesChanged").await.map_err(failed)?.map(drop);
        Ok(Watched { unit, proxy, changes: Box::pin(changes) })
    }
}

/// A watched unit.
pub struct Watched {
    unit: &'static str,
    proxy: UnitProxy<'static>,
    changes: std::pin::Pin<Box<dyn Stream<Item = ()> + Send>>,
}

impl Watched {
    /// Asks systemd.
    pub async fn state(&mut self) -> Result<UnitState, SystemdError> {
        let failed = |source| SystemdError::Unit { unit: self.unit, source };
        Ok(UnitState {
            active: self.proxy.active_state().await.map_err(failed)?,
            sub: self.proxy.sub_state().await.map_err(failed)?,
        })
    }

    /// Waits for a change. `false` means: the connection has ended. Cancel-safe.
    pub async fn changed(&mut self) -> bool {
        self.changes.next().await.is_some()
    }
}
