//! A recorded run as one HTML page: a space-time diagram with a column for each process, time downwards.
//!
//! The page is one file. It needs no network, no server and nothing beside it, and loads nothing: it can be opened from
//! disk, attached to a report, and read in years. What is in view and what is filtered is in its address
//! (`#t=10ms..20ms&kind=append,vote&from=n1&text=commit`), so that a view can be passed on.
//!
//! | file | is |
//! |---|---|
//! | `page.html`, `page.css` | what it looks like |
//! | `page.js` | draws, filters, tells; only what is in view, so that many thousands of datagrams stay fluid |
//! | `data.rs` | the recording as the script reads it |

mod data;

use serde_json::Value;

use crate::recording::Recording;

/// What a page says about a run besides what was recorded.
#[derive(Clone, Debug)]
pub struct About {
    /// The heading.
    pub title: String,
    /// The seed, if one stands for the run.
    pub seed: Option<u64>,
    /// How it ended: `clean`, `safety`, `liveness`, `panic`, `undecided`.
    pub verdict: String,
    /// The same in a sentence. Of a run that is not clean it is shown where it ends, if no violation was recorded.
    pub verdict_text: String,
    /// What the seed decided.
    pub draw: Vec<String>,
    /// How to run it again.
    pub command: String,
}

/// The page.
pub fn page(recording: &Recording, about: &About) -> String {
    fill(
        include_str!("page.html"),
        &[
            ("title", &escape_html(&about.title)),
            ("style", include_str!("page.css").trim_end()),
            ("recording", &escape_script(&data::of(recording, about))),
            ("script", include_str!("page.js").trim_end()),
        ],
    )
}

/// The template with every `{{name}}` replaced. What is filled in is not looked at again, whatever it looks like.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut page = String::with_capacity(template.len() + values.iter().map(|(_, value)| value.len()).sum::<usize>());
    let mut rest = template;
    while let Some((before, (name, after))) =
        rest.split_once("{{").and_then(|(before, after)| Some((before, after.split_once("}}")?)))
    {
        page.push_str(before);
        let value = values.iter().find(|(known, _)| *known == name);
        page.push_str(value.expect("the template asks for nothing else").1);
        rest = after;
    }
    page + rest
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// JSON inside a script element: `<` is only ever part of a string, and there it may be written otherwise.
fn escape_script(data: &Value) -> String {
    data.to_string().replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_not_read_again() {
        assert_eq!(fill("a {{x}} b {{y}} c", &[("x", "{{y}}"), ("y", "}}")]), "a {{y}} b }} c");
    }

    #[test]
    fn no_text_ends_its_element() {
        let data = serde_json::json!({ "text": "</script><!-- \"quoted\" \u{2028}" });
        let escaped = escape_script(&data);
        assert!(!escaped.contains('<'), "{escaped}");
        assert_eq!(serde_json::from_str::<Value>(&escaped).ok(), Some(data));
        assert_eq!(escape_html("</title> & \"x\""), "&lt;/title&gt; &amp; &quot;x&quot;");
        for part in [include_str!("page.js"), include_str!("page.css")] {
            assert!(!part.contains("</"), "ends the element that it is put into");
        }
    }

    #[test]
    fn a_page_loads_nothing() {
        let about = About {
            title: "</title><b>".to_owned(),
            seed: None,
            verdict: "clean".to_owned(),
            verdict_text: "clean".to_owned(),
            draw: Vec::new(),
            command: String::new(),
        };
        let page = page(&Recording::new(crate::recording::RecordingConfig::default(), 1, 0), &about);
        for loads in ["http://", "https://", " src=", "@import", "url(", "fetch(", "<link", "</title><b>"] {
            assert!(!page.contains(loads), "{loads}");
        }
        assert!(!page.contains("{{"));
        assert!(page.contains("default-src 'none'"));
    }
}
