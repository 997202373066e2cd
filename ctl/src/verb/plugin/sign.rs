//! `k8sctl plugin sign`: signs a package as minisign does, and makes keys for that. A password comes from a terminal or
//! from a file, never from the command line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use k8sctl_types::failure::Failure;
use plugin_package::{new_key, pack, sign, unpack};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde::Serialize;

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

pub(super) fn run(context: &Context, args: &PluginSignArgs) -> Result<Exit, Ended> {
    if let Some(file) = &args.new_key {
        return make_keys(context, file, args);
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
        Given::Package => sign_folder(context, args, path, &secret)?,
        Given::Archive => sign_archive(context, args, path, &secret)?,
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
fn sign_folder(context: &Context, args: &PluginSignArgs, folder: &Path, secret: &str) -> Result<(), Ended> {
    let name = source::name_of(folder);
    if let Some(file) = &args.password_file {
        let password = password_of(file)?;
        return Ok(sign(folder, secret, &password).map(drop).map_err(|error| error.failure(&name))?);
    }
    let Err(error) = sign(folder, secret, "") else { return Ok(()) };
    let failure = error.failure(&name);
    if failure.id != "PLUGIN-KEY" || !context.can_ask {
        return Err(failure.into());
    }
    let password = ask(context, "password of the key: ")?;
    sign(folder, secret, &password).map(drop).map_err(|error| error.failure(&name))?;
    Ok(())
}

/// It is replaced as a whole, by the same with a signature.
fn sign_archive(context: &Context, args: &PluginSignArgs, file: &Path, secret: &str) -> Result<(), Ended> {
    let name = source::name_of(file);
    let into = source::scratch()?;
    let folder = unpack(file, into.path()).map_err(|error| error.failure(&name))?;
    sign_folder(context, args, &folder, secret)?;
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

fn make_keys(context: &Context, file: &Path, args: &PluginSignArgs) -> Result<Exit, Ended> {
    let mut public = file.as_os_str().to_owned();
    public.push(".pub");
    let public = PathBuf::from(public);
    for path in [file, &public] {
        if path.exists() {
            let reason = "it is there already, and a key is never written over".to_owned();
            return Err(refused("PLUGIN-KEY", path, reason, "name another file").into());
        }
    }
    let password = match &args.password_file {
        Some(file) => password_of(file)?,
        None if context.can_ask => new_password(context)?,
        None => String::new(),
    };
    let (secret_key, public_key) = new_key(&password).map_err(|error| error.failure("sign"))?;
    write_new(file, 0o600, &secret_key)?;
    write_new(&public, 0o644, &public_key)?;
    if context.format.is_structured() {
        output::document(context, &Pair { secret_key: file.to_owned(), public_key: public })?;
        return Ok(Exit::Ok);
    }
    let (file, public) = (file.display().to_string(), public.display().to_string());
    context.out.line(context.out.paint(styles::GOOD, visible(&format!("made {file} and {public}"))))?;
    context.out.line(visible(&format!("keep {file} to yourself; a host that has {public} in")))?;
    context.out.line("/etc/k8s-myhome/plugin-keys.d trusts what it signs")?;
    Ok(Exit::Ok)
}

fn new_password(context: &Context) -> Result<String, Ended> {
    let first = ask(context, ASKED[0])?;
    if first.is_empty() || first == ask(context, ASKED[1])? {
        return Ok(first);
    }
    let next = "run it again, and type the same twice";
    Err(Failure::new("PLUGIN-KEY", "password", "the two are not the same", next).into())
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), Failure> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        refused("PLUGIN-KEY", path, format!("cannot write it: {error}"), "name another file")
    })
}

/// The first line.
fn password_of(file: &Path) -> Result<String, Failure> {
    let line = if file == Path::new("-") {
        first_line(io::stdin().lock())
    } else {
        File::open(file).and_then(|file| first_line(BufReader::new(file)))
    };
    line.map_err(|error| {
        let next = "write the password into its first line, or name - for standard input";
        refused("PLUGIN-KEY", file, format!("cannot read the password: {error}"), next)
    })
}

fn first_line(mut from: impl io::BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A line that the terminal does not show.
fn ask(context: &Context, question: &str) -> io::Result<String> {
    context.story().raw(question)?;
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Flush, &before)?;
    context.story().line("")?;
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn refused(id: &str, path: &Path, reason: String, next: &str) -> Failure {
    Failure::new(id, format!("file {}", path.display()), reason, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn args(new_key: Option<PathBuf>, password: Option<PathBuf>) -> PluginSignArgs {
        PluginSignArgs { package: None, key: None, new_key, password_file: password }
    }

    #[test]
    fn a_new_key_is_its_owners_alone_and_never_written_over() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("mine");
        let context = Context::without_command(Format::Json);
        run(&context, &args(Some(file.clone()), None)).expect("made");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        assert!(dir.path().join("mine.pub").is_file());
        let again = run(&context, &args(Some(file), None)).expect_err("it is there");
        assert!(matches!(again, Ended::Problem(problem) if problem.failure.id == "PLUGIN-KEY"));
    }

    #[test]
    fn a_password_is_the_first_line_of_its_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("password");
        fs::write(&file, "two words \r\nmore\n").expect("written");
        assert_eq!(password_of(&file).expect("readable"), "two words ");
        assert_eq!(password_of(&dir.path().join("nothing")).expect_err("not there").id, "PLUGIN-KEY");
    }
}
