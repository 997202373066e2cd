//! Pool, image files and volumes: executing.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use virt::connect::Connect;
use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;

use super::error::{Context, LibvirtError, Result, missing, not_ours, optional};
use super::{domain, observe};
use crate::change::{DomainRef, Outcome};
use crate::desired::{is_image_part, part_name};
use crate::plan::{disk_full, left_disk};
use crate::xml::storage::{POOL_MODE, pool_xml, read_pool_path, read_volume_backing, volume_xml};

fn find_pool(connect: &Connect, name: &str) -> Result<Option<StoragePool>> {
    optional(connect.lookup_storage_pool_by_name(name)).call("look up", "pool", name)
}

fn get_pool(connect: &Connect, name: &str) -> Result<StoragePool> {
    find_pool(connect, name)?.ok_or_else(|| missing("pool", name).into())
}

fn find_volume(pool: &StoragePool, name: &str) -> Result<Option<StorageVol>> {
    optional(pool.lookup_storage_vol_by_name(name)).call("look up", "volume", name)
}

/// libvirt looks into the directory again. While another job of the pool runs it cannot, and that
/// job's end shows it the same.
fn refresh(pool: &StoragePool, name: &str) {
    if let Err(error) = pool.refresh(0) {
        tracing::warn!(libvirt.pool = name, error = error.message(), "cannot refresh the pool");
    }
}

pub(super) fn execute_define_pool(connect: &Connect, name: &str, path: &Path) -> Result<Outcome> {
    if let Some(pool) = find_pool(connect, name)? {
        let xml = pool.xml_desc(0).call("read", "pool", name)?;
        let there = read_pool_path(&xml).call("read", "pool", name)?;
        return if there.as_deref() == Some(path) {
            Ok(Outcome::AlreadySo)
        } else {
            Err(not_ours("pool", name).into())
        };
    }
    let xml = pool_xml(name, path).call("write", "pool", name)?;
    connect.define_storage_pool_xml(&xml, 0).call("define", "pool", name)?;
    Ok(Outcome::Done)
}

pub(super) fn execute_start_pool(connect: &Connect, name: &str) -> Result<Outcome> {
    let pool = get_pool(connect, name)?;
    let active = pool.is_active().call("read", "pool", name)?;
    let autostart = pool.autostart().call("read", "pool", name)?;
    if !active {
        pool.build(0).call("make the directory of", "pool", name)?;
        pool.create(0).call("start", "pool", name)?;
    }
    if !autostart {
        pool.set_autostart(true).call("autostart", "pool", name)?;
    }
    Ok(if active && autostart { Outcome::AlreadySo } else { Outcome::Done })
}

pub(super) fn execute_delete_pool(connect: &Connect, name: &str) -> Result<Outcome> {
    let Some(pool) = find_pool(connect, name)? else { return Ok(Outcome::AlreadySo) };
    if pool.is_active().call("read", "pool", name)? {
        pool.destroy().call("stop", "pool", name)?;
    }
    pool.undefine().call("undefine", "pool", name)?;
    Ok(Outcome::Done)
}

/// The file appears whole or not at all: linked or copied under another name, then renamed.
pub(super) fn execute_install(
    connect: &Connect,
    pool: &str,
    source: &Path,
    target: &Path,
) -> Result<Outcome> {
    if target.exists() {
        return Ok(Outcome::AlreadySo);
    }
    let failed = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| LibvirtError::File { what, path, source }
    };
    let (Some(directory), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(missing("directory of", &target.to_string_lossy()).into());
    };
    if !directory.is_dir() {
        // Removed under a pool that runs: libvirt makes it only when it starts the pool.
        fs::create_dir_all(directory).map_err(failed("make", directory))?;
        fs::set_permissions(directory, fs::Permissions::from_mode(POOL_MODE))
            .map_err(failed("set the mode of", directory))?;
    }
    remove_parts(directory)?;
    let part = directory.join(part_name(&name.to_string_lossy()));
    // A link costs nothing; where it cannot be (another file system), the copy is a reflink if it can.
    if fs::hard_link(source, &part).is_err() {
        fs::copy(source, &part).map_err(failed("copy to", &part))?;
        fs::set_permissions(&part, fs::Permissions::from_mode(0o644))
            .map_err(failed("set the mode of", &part))?;
        File::open(&part).and_then(|file| file.sync_all()).map_err(failed("write", &part))?;
    }
    fs::rename(&part, target).map_err(failed("rename to", target))?;
    File::open(directory).and_then(|it| it.sync_all()).map_err(failed("write", directory))?;
    refresh(&get_pool(connect, pool)?, pool);
    Ok(Outcome::Done)
}

/// Removes what interrupted copies left, of other images too: there is one copy at a time.
fn remove_parts(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if is_image_part(&entry.file_name().to_string_lossy()) {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> Result<Outcome> {
    match fs::remove_file(path) {
        Ok(()) => Ok(Outcome::Done),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Outcome::AlreadySo),
        Err(source) => Err(LibvirtError::File { what: "remove", path: path.to_owned(), source }),
    }
}

pub(super) fn execute_remove(connect: &Connect, pool: &str, target: &Path) -> Result<Outcome> {
    let outcome = remove_file(target)?;
    if let Some(there) = find_pool(connect, pool)? {
        refresh(&there, pool);
    }
    Ok(outcome)
}

pub(super) fn execute_create_volume(
    connect: &Connect,
    pool: &str,
    name: &str,
    capacity: u64,
    backing: &Path,
) -> Result<Outcome> {
    let there = get_pool(connect, pool)?;
    if let Some(volume) = find_volume(&there, name)? {
        if optional(volume.info()).call("read", "volume", name)?.is_some() {
            return as_planned(&volume, name, backing);
        }
        // libvirt remembers a disk whose file was removed, and would not make another one of that name.
        refresh(&there, pool);
    }
    let directory = backing.parent().unwrap_or(backing);
    let free = observe::free_bytes(directory);
    if free < 1 << 20 {
        return Err(disk_full(directory, 1 << 20, free).into());
    }
    let xml = volume_xml(name, capacity, backing).call("write", "volume", name)?;
    StorageVol::create_xml(&there, &xml, 0).call("create", "volume", name)?;
    Ok(Outcome::Done)
}

/// A disk that is there already is the one to be made where it is on the same image.
fn as_planned(volume: &StorageVol, name: &str, backing: &Path) -> Result<Outcome> {
    let xml = volume.xml_desc(0).call("read", "volume", name)?;
    let there = read_volume_backing(&xml).call("read", "volume", name)?;
    if there.as_deref().and_then(Path::file_name) == backing.file_name() {
        return Ok(Outcome::AlreadySo);
    }
    let there = there.map_or_else(|| "no image".to_owned(), |there| there.display().to_string());
    let reason = format!("it is on {there}, and the disk to be made would be on {}", backing.display());
    Err(left_disk(&backing.with_file_name(name), reason).into())
}

pub(super) fn execute_grow_volume(
    connect: &Connect,
    pool: &str,
    name: &str,
    capacity: u64,
    reference: &DomainRef,
) -> Result<Outcome> {
    let there = get_pool(connect, pool)?;
    let volume = match find_volume(&there, name)? {
        Some(volume) => volume,
        None => {
            // A disk that was put back by hand, which libvirt has not seen.
            refresh(&there, pool);
            find_volume(&there, name)?.ok_or_else(|| missing("volume", name))?
        }
    };
    if volume.info().call("read", "volume", name)?.capacity >= capacity {
        return Ok(Outcome::AlreadySo);
    }
    match domain::find_ours(connect, reference)? {
        // QEMU has the file open: it must be the one that changes it.
        Some(domain) if domain.is_active().call("read", "domain", &reference.name)? => {
            domain.block_resize("vda", capacity, virt::sys::VIR_DOMAIN_BLOCK_RESIZE_BYTES).call(
                "grow the disk of",
                "domain",
                &reference.name,
            )?;
            refresh(&there, pool);
        }
        _ => volume.resize(capacity, 0).call("grow", "volume", name)?,
    }
    Ok(Outcome::Done)
}

pub(super) fn execute_delete_volume(connect: &Connect, pool: &str, name: &str) -> Result<Outcome> {
    let Some(there) = find_pool(connect, pool)? else { return Ok(Outcome::AlreadySo) };
    match find_volume(&there, name)? {
        Some(volume) => {
            volume.delete(0).call("delete", "volume", name)?;
            Ok(Outcome::Done)
        }
        // Unknown to libvirt, but perhaps a file that it has not seen.
        None => {
            let xml = there.xml_desc(0).call("read", "pool", pool)?;
            match read_pool_path(&xml).call("read", "pool", pool)? {
                Some(path) => execute_remove(connect, pool, &path.join(name)),
                None => Ok(Outcome::AlreadySo),
            }
        }
    }
}
