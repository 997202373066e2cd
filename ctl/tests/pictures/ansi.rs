//! What a terminal shows, as text with styles and as a page. It knows the escape sequences that `tmux capture-pane -e`
//! writes, which are those of styles.

/// How a text is painted. Colours are numbers of the palette of 256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    pub text: Option<u8>,
    pub back: Option<u8>,
    bold: bool,
    dim: bool,
    underlined: bool,
    reversed: bool,
}

/// Of the first 16 colours; the dashboard uses no other ones.
const PALETTE: [&str; 16] = [
    "#1b1f24", "#ff6369", "#4cc38a", "#f5b83d", "#91a7ff", "#da77f2", "#3bc9db", "#d4d8de", "#6b7280",
    "#ff8b8f", "#69db7c", "#ffd43b", "#b3c2ff", "#e599f7", "#66d9e8", "#ffffff",
];
const TEXT: &str = "#ecedee";
const BACK: &str = "#151718";

/// The text in pieces of one style each.
pub fn pieces(painted: &str) -> Vec<(Style, String)> {
    let mut parts = painted.split("\x1b[");
    let mut style = Style::default();
    let mut pieces = vec![(style, parts.next().unwrap_or_default().to_owned())];
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).expect("the sequence has an end");
        let (codes, text) = part.split_at(end);
        if let Some(text) = text.strip_prefix('m') {
            style = painted_by(codes, style);
            pieces.push((style, text.to_owned()));
        } else {
            panic!("no sequence of a style: {part:?}");
        }
    }
    pieces.retain(|(_, text)| !text.is_empty());
    pieces
}

fn painted_by(codes: &str, mut style: Style) -> Style {
    let mut codes = codes.split(';').map(|code| code.parse::<u8>().unwrap_or(0));
    while let Some(code) = codes.next() {
        match code {
            0 => style = Style::default(),
            1 => style.bold = true,
            2 => style.dim = true,
            4 => style.underlined = true,
            7 => style.reversed = true,
            22 => (style.bold, style.dim) = (false, false),
            24 => style.underlined = false,
            27 => style.reversed = false,
            30..=37 => style.text = Some(code - 30),
            38 => style.text = of_256(&mut codes),
            39 => style.text = None,
            40..=47 => style.back = Some(code - 40),
            48 => style.back = of_256(&mut codes),
            49 => style.back = None,
            90..=97 => style.text = Some(code - 90 + 8),
            100..=107 => style.back = Some(code - 100 + 8),
            _ => {}
        }
    }
    style
}

/// What stands behind 38 and 48: `5;NUMBER`.
fn of_256(codes: &mut impl Iterator<Item = u8>) -> Option<u8> {
    if codes.next() == Some(5) { codes.next() } else { None }
}

/// A page with nothing in it but this screen, in an element `pre`.
pub fn page(painted: &str) -> String {
    let spans: String = pieces(painted.trim_end()).iter().map(|(style, text)| span(*style, text)).collect();
    format!(
        "<!doctype html><meta charset=\"utf-8\"><style>body {{ margin: 0; }} pre {{ display: inline-block; margin: 0; \
         padding: 16px; background: {BACK}; color: {TEXT}; font: 14px/17px 'DejaVu Sans Mono', monospace; }}</style>\
         <pre>{spans}</pre>"
    )
}

fn span(style: Style, text: &str) -> String {
    let color = |number: u8| PALETTE[usize::from(number) % PALETTE.len()];
    let (mut front, mut back) = (style.text.map_or(TEXT, color), style.back.map_or(BACK, color));
    if style.reversed {
        (front, back) = (back, front);
    }
    let mut css = format!("color: {front}; background: {back};");
    for (is_so, more) in [
        (style.bold, " font-weight: bold;"),
        (style.dim, " opacity: .6;"),
        (style.underlined, " text-decoration: underline;"),
    ] {
        if is_so {
            css.push_str(more);
        }
    }
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("<span style=\"{css}\">{text}</span>")
}

#[test]
fn styles_are_read_and_texts_stay_texts() {
    let painted = "a\x1b[1m\x1b[38;5;2mb\x1b[0m\x1b[39m\x1b[49m\x1b[7;91;44m<i>&\x1b[27m\n";
    let good = Style { text: Some(2), bold: true, ..Style::default() };
    let marked = Style { text: Some(9), back: Some(4), reversed: true, ..Style::default() };
    let after = Style { reversed: false, ..marked };
    let expected = [(Style::default(), "a"), (good, "b"), (marked, "<i>&"), (after, "\n")];
    assert_eq!(pieces(painted), expected.map(|(style, text)| (style, text.to_owned())));
    let page = page(painted);
    assert!(page.contains("color: #4cc38a; background: #151718; font-weight: bold;\">b</span>"), "{page}");
    assert!(page.contains("color: #91a7ff; background: #ff8b8f;\">&lt;i&gt;&amp;</span>"), "{page}");
}
