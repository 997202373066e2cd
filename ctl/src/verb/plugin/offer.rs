//! How an offer is shown: what the plugin asks for, what of that is new, and what it brings.

use std::io;

use crate::terminal::{Printer, styles, visible};
use crate::view::OfferView;

/// Permissions that nobody is to overlook begin so.
const LOUD: [&str; 8] = [
    "UNSIGNED:",
    "EVERYTHING:",
    "EVERY SECRET:",
    "ESCALATE:",
    "PODS OF ANY KIND:",
    "MAY CHANGE:",
    "pods that reach into the node",
    "takes over the pod network",
];

/// Whether a permission gives a lot away.
pub(in crate::verb) fn is_loud(permission: &str) -> bool {
    LOUD.iter().any(|loud| permission.starts_with(loud))
}

/// Shows it.
pub(super) fn show(printer: &Printer, offer: &OfferView) -> io::Result<()> {
    let name = printer.paint(styles::STRONG, visible(&format!("{} {}", offer.name, offer.version)));
    let from = offer.from_version.as_deref().filter(|from| *from != offer.version);
    let from = from.map(|from| format!(" instead of {}", visible(from))).unwrap_or_default();
    let trust = match offer.trust.as_str() {
        "" => String::new(),
        "dev" => printer.paint(styles::WARN, " (dev: nobody has signed it)"),
        other => printer.paint(styles::DIM, format!(" ({})", visible(other))),
    };
    printer.line(format!("plugin {name}{from}{trust}"))?;
    list(printer, "asks for", &offer.new_permissions, |line| {
        let style = if is_loud(line) { styles::BAD } else { styles::WARN };
        (style, "+")
    })?;
    let before = offer.permissions.len() - offer.permissions.len().min(offer.new_permissions.len());
    if before > 0 {
        let more = if offer.new_permissions.is_empty() { "" } else { " more" };
        let line = format!("  {before}{more} permission(s) that were approved before");
        printer.line(printer.paint(styles::DIM, line))?;
    }
    list(printer, "brings", &offer.objects, |_| (styles::GOOD, "+"))?;
    list(printer, "tells the nodes", &offer.node_requirements, |_| (styles::WARN, "~"))?;
    for remark in &offer.remarks {
        printer.line(format!("  {}", visible(remark)))?;
    }
    Ok(())
}

fn list(
    printer: &Printer,
    word: &str,
    lines: &[String],
    sign: impl Fn(&str) -> (anstyle::Style, &'static str),
) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    printer.line(format!("  {word}:"))?;
    lines.iter().try_for_each(|line| {
        let (style, mark) = sign(line);
        printer.line(format!(
            "    {} {}",
            printer.paint(style, mark),
            printer.paint(loudness(style), visible(line))
        ))
    })
}

/// What is dangerous is coloured as a whole.
fn loudness(style: anstyle::Style) -> anstyle::Style {
    if style == styles::BAD { style } else { anstyle::Style::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dangerous_is_not_overlooked() {
        for line in
            ["EVERYTHING: its service accounts may * everything", "takes over the pod network of all nodes"]
        {
            assert!(is_loud(line), "{line}");
        }
        assert!(!is_loud("get,create Deployment.apps in namespace hello"));
        assert_eq!(loudness(styles::BAD), styles::BAD);
        assert_eq!(loudness(styles::WARN), anstyle::Style::new());
    }
}
