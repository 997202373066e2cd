//! `k8sctl plugin sign`: signs a package as minisign does, and makes keys for that. A password comes from a terminal or
//! from a file, never from the command line.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use k8sctl_types::failure::Failure;
use plugin_package::{new_key, pack, sign, unpack};
use serde::Serialize;
use tempfile::NamedTempFile;

use super::password;
use super::source::{self, Given};
use crate::cli::PluginSignArgs;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::output;
use crate::terminal::{Context, styles, visible};

/// A new key is asked for its password twice.
const ASKED: [&str; 2] = ["password for the new key, empty for none: ", "the same again: "];

/// `plugin sign -o json`.
#[derive(Debug, Serialize)]
struct Signed {
    /// What was signed.
    path: PathBuf,
}

/// `plugin sign --new-key -o json`.
#[derive(Debug, Serialize)]
struct Pair {
    secret_key: PathBuf,
    public_key: PathBuf,
}

pub(super) async fn run(context: &Context, args: &PluginSignArgs) -> Result<Exit, Ended> {
    if let Some(file) = &args.new_key {
        return make_keys(context, file, args).await;
    }
    let (Some(path), Some(key)) = (&args.package, &args.key) else {
        unreachable!("clap wants both without --new-key")
    };
    let secret = fs::read_to_string(key).map_err(|error| {
        let next = "name the secret key's file; `k8sctl plugin sign --new-key FILE` makes one";
        refused("PLUGIN-KEY", key, format!("cannot read it: {error}"), next)
    })?;
    match source::look(path)? {
        Given::Source(manifest) => {
            let built = source::built(path);
            let reason = "it is a source folder; what is signed is the package".to_owned();
            let next = format!("build it, then sign {}", built.display());
            let object = format!("plugin {}", manifest.name);
            return Err(Failure::new("PLUGIN-SIGNATURE", object, reason, next).into());
        }
        Given::Package => sign_folder(context, args, path, &secret).await?,
        Given::Archive => sign_archive(context, args, path, &secret).await?,
    }
    if context.format.is_structured() {
        output::document(context, &Signed { path: path.clone() })?;
    } else {
        let what = format!("signed {}", path.display());
        context.out.line(context.out.paint(styles::GOOD, visible(&what)))?;
    }
    Ok(Exit::Ok)
}

/// First as a key without a password, unless one is named: of a key that has one, a person is asked for it.
async fn sign_folder(
    context: &Context,
    args: &PluginSignArgs,
    folder: &Path,
    secret: &str,
) -> Result<(), Ended> {
    let name = source::name_of(folder);
    if let Some(file) = &args.password_file {
        let password = password::of_file(file)?;
        return Ok(sign(folder, secret, &password).map(drop).map_err(|error| error.failure(&name))?);
    }
    let Err(error) = sign(folder, secret, "") else { return Ok(()) };
    let failure = error.failure(&name);
    if failure.id != "PLUGIN-KEY" || !context.can_ask {
        return Err(failure.into());
    }
    let password = password::ask(context, "password of the key: ").await?;
    sign(folder, secret, &password).map(drop).map_err(|error| error.failure(&name))?;
    Ok(())
}

/// It is replaced as a whole, by the same with a signature.
async fn sign_archive(
    context: &Context,
    args: &PluginSignArgs,
    file: &Path,
    secret: &str,
) -> Result<(), Ended> {
    let name = source::name_of(file);
    let into = source::scratch()?;
    let folder = unpack(file, into.path()).map_err(|error| error.failure(&name))?;
    sign_folder(context, args, &folder, secret).await?;
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let packed = pack(&folder, &beside).map_err(|error| error.failure(&name));
    let placed = packed.and_then(|()| {
        fs::rename(&beside, file).map_err(|error| {
            let reason = format!("cannot replace it: {error}");
            refused("PLUGIN-BUILD", file, reason, "make its folder writable for you, or sign a copy of it")
        })
    });
    if placed.is_err() {
        // It may not be there.
        let _ = fs::remove_file(&beside);
    }
    Ok(placed?)
}

async fn make_keys(context: &Context, file: &Path, args: &PluginSignArgs) -> Result<Exit, Ended> {
    let mut public = file.as_os_str().to_owned();
    public.push(".pub");
    let public = PathBuf::from(public);
    for path in [file, &public] {
        if path.symlink_metadata().is_ok() {
            let reason = "it is there already, and a key is never written over".to_owned();
            return Err(refused("PLUGIN-KEY", path, reason, "name another file").into());
        }
    }
    let password = match &args.password_file {
        Some(file) => password::of_file(file)?,
        None if context.can_ask => new_password(context).await?,
        None => String::new(),
    };
    let (secret_key, public_key) = new_key(&password).map_err(|error| error.failure("sign"))?;
    write_pair((file, secret_key.as_str()), (public.as_path(), public_key.as_str()))?;
    if context.format.is_structured() {
        output::document(context, &Pair { secret_key: file.to_owned(), public_key: public })?;
        return Ok(Exit::Ok);
    }
    let (file, public) = (file.display().to_string(), public.display().to_string());
    context.out.line(context.out.paint(styles::GOOD, visible(&format!("made {file} and {public}"))))?;
    context.out.line(visible(&format!("keep {file} to yourself; a host that has {public} in")))?;
    context.out.line("/etc/k8s-myhome/plugin-keys.d when its host agent starts trusts what it signs")?;
    Ok(Exit::Ok)
}

async fn new_password(context: &Context) -> Result<String, Ended> {
    let first = password::ask(context, ASKED[0]).await?;
    if first.is_empty() || first == password::ask(context, ASKED[1]).await? {
        return Ok(first);
    }
    let next = "run it again, and type the same twice";
    Err(Failure::new("PLUGIN-KEY", "password", "the two are not the same", next).into())
}

/// Both files with their texts, or neither; nothing that is there is written over.
fn write_pair(secret: (&Path, &str), public: (&Path, &str)) -> Result<(), Failure> {
    let first = beside(secret, 0o600)?;
    let second = beside(public, 0o644)?;
    place(first, secret.0)?;
    place(second, public.0).inspect_err(|_| {
        // It has only just come there, of no use without the other.
        let _ = fs::remove_file(secret.0);
    })
}

/// The whole text in the folder of its file, under a name that goes with the run.
fn beside((path, text): (&Path, &str), mode: u32) -> Result<NamedTempFile, Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = || -> io::Result<NamedTempFile> {
        let mode = fs::Permissions::from_mode(mode);
        let mut file = tempfile::Builder::new().prefix(".key-").permissions(mode).tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        Ok(file)
    };
    written().map_err(|error| unwritable(path, &error))
}

/// Its own name, unless something has that by now.
fn place(file: NamedTempFile, path: &Path) -> Result<(), Failure> {
    file.persist_noclobber(path).map(drop).map_err(|error| unwritable(path, &error.error))
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    refused("PLUGIN-KEY", path, format!("cannot write it: {error}"), "name another file")
}

pub(super) fn refused(id: &str, path: &Path, reason: String, next: &str) -> Failure {
    Failure::new(id, format!("file {}", path.display()), reason, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn args(new_key: Option<PathBuf>, password: Option<PathBuf>) -> PluginSignArgs {
        PluginSignArgs { package: None, key: None, new_key, password_file: password }
    }

    #[tokio::test]
    async fn a_new_key_is_its_owners_alone_and_never_written_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("mine");
        let context = Context::without_command(Format::Json);
        run(&context, &args(Some(file.clone()), None)).await.expect("made");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        assert!(dir.path().join("mine.pub").is_file());
        let again = run(&context, &args(Some(file), None)).await.expect_err("it is there");
        assert!(matches!(again, Ended::Problem(problem) if problem.failure.id == "PLUGIN-KEY"));
    }

    #[test]
    fn a_pair_is_written_as_a_whole_or_not_at_all() {
        for taken in ["mine", "mine.pub"] {
            let dir = tempfile::tempdir().expect("a folder");
            let (secret, public) = (dir.path().join("mine"), dir.path().join("mine.pub"));
            // It came after it was looked for. Where a link leads to is not written either.
            std::os::unix::fs::symlink(dir.path().join("elsewhere"), dir.path().join(taken)).expect("a link");
            let failure = write_pair((secret.as_path(), "secret"), (public.as_path(), "public"));
            let failure = failure.expect_err("one is taken");
            assert!(failure.id == "PLUGIN-KEY" && failure.object.ends_with(taken), "{failure:?}");
            let left = fs::read_dir(dir.path()).expect("a folder");
            let left = left.map(|entry| entry.expect("an entry").file_name()).collect::<Vec<_>>();
            assert_eq!(left, [taken]);
        }
        let dir = tempfile::tempdir().expect("a folder");
        let (secret, public) = (dir.path().join("mine"), dir.path().join("nowhere/mine.pub"));
        let written = write_pair((secret.as_path(), "secret"), (public.as_path(), "public"));
        written.expect_err("there is no such folder");
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 0);
    }
}
