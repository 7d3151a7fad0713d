//! The page of a recorded run, opened in a real browser without a screen.
//!
//! The browser is `$HOVERCRAFT_CHROMIUM`, or a Chromium on the `PATH`; without one these tests say so and check nothing.

mod common;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use common::{call, config_of, drain};
use r2p2::Instant;
use r2p2::client::Kind;
use serde_json::{Value, json};
use simulator::page::{About, page};
use simulator::recording::{Datagram, Fate, Recording, RecordingConfig};
use simulator::registers::{Request, tell_reply, tell_request};
use simulator::{NetworkConfig, Party, Registers, World, WorldConfig};

/// The leader of three nodes is killed under load, on a network that loses a third, and another takes over.
#[test]
fn a_browser_shows_the_crash_and_the_messages_around_it() {
    let Some(browser) = Browser::find() else { return };
    let Scene { recording, crashed, killed_at, from, to } = scene();
    let file = browser.file("crash", &page(&recording, &about("clean")));

    let drawn = browser.drawn(&file, &format!("t={from}ns..{to}ns"));
    let crashes = drawn["crashes"].as_array().unwrap();
    assert_eq!(crashes.len(), 1, "{drawn}");
    assert_eq!(crashes[0]["process"], json!(format!("n{crashed}")));
    assert_eq!(crashes[0]["why"], "killed");
    assert_eq!(crashes[0]["from"], json!(killed_at));
    assert_eq!(crashes[0]["to"], json!(recording.end.as_nanos()), "it does not come back");

    // Everything that was under way while time was in view is there, and nothing else.
    let visible = |datagram: &&Datagram| {
        let end = datagram.fate.at().unwrap_or(recording.end).as_nanos();
        datagram.from != datagram.to && datagram.sent.as_nanos() <= to && end >= from
    };
    let count = |wanted: &dyn Fn(&Datagram) -> bool| {
        recording.datagrams().filter(visible).filter(|datagram| wanted(datagram)).count()
    };
    let [arrows, lost, unheard] = [
        count(&|datagram| matches!(datagram.fate, Fate::Delivered(_))),
        count(&|datagram| matches!(datagram.fate, Fate::Lost(_))),
        count(&|datagram| matches!(datagram.fate, Fate::Unheard(_))),
    ];
    assert!(arrows > 50 && lost > 10 && unheard > 5, "{arrows} {lost} {unheard}");
    assert_eq!(drawn["arrows"], json!(arrows));
    assert_eq!(drawn["crosses"]["lost"], json!(lost));
    assert_eq!(drawn["crosses"]["unheard"], json!(unheard));
    assert_eq!(drawn["datagrams"], json!(count(&|_| true)));
    for kind in ["request", "response", "append", "append_ack", "vote", "vote_reply"] {
        assert_eq!(drawn["kinds"][kind], json!(count(&|datagram| datagram.kind == kind)), "{kind}");
        assert_ne!(drawn["kinds"][kind], json!(0), "{kind}");
    }
    let mut leaders: Vec<(u64, &str)> = drawn["terms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|term| (term["term"].as_u64().unwrap(), term["process"].as_str().unwrap()))
        .collect();
    leaders.sort_unstable();
    assert_eq!(leaders[0].1, format!("n{crashed}"));
    assert!(leaders.iter().any(|leader| leader.1 != leaders[0].1), "{leaders:?}");
    let operations = recording.operations().filter(|operation| operation.call.as_nanos() <= to).filter(|operation| {
        let end = operation.end.as_ref().map_or(recording.end, |(at, _)| *at);
        end.as_nanos() >= from
    });
    assert_eq!(drawn["operations"].as_array().unwrap().len(), operations.count());
    assert_eq!(drawn["violation"], Value::Null);

    // Filters in the address.
    let sender = Party::Node(crashed);
    let less = browser.drawn(&file, &format!("t={from}ns..{to}ns&kind=append&from=n{crashed}"));
    let appends = count(&|datagram| datagram.kind == "append" && datagram.from == sender);
    assert_eq!(less["kinds"], json!({ "append": appends }));
    assert!(appends > 0 && appends < count(&|_| true));
    let crosses = browser.drawn(&file, &format!("t={from}ns..{to}ns&fate=lost"));
    assert_eq!((&crosses["arrows"], &crosses["crosses"]), (&json!(0), &json!({ "lost": lost })));
    let text = "would you vote";
    let found = browser.drawn(&file, &format!("t={from}ns..{to}ns&text=Would%20you%20vote"));
    let asked = count(&|datagram| recording.summary(datagram).contains(text));
    assert_eq!((&found["datagrams"], asked > 0), (&json!(asked), true));

    let picture = browser.screenshot(&file, &format!("t={from}ns..{to}ns"));
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n"));
    let size = [16, 20].map(|at| u32::from_be_bytes(picture[at..at + 4].try_into().unwrap()));
    assert_eq!(size, WINDOW);
    assert!(picture.len() > 40_000, "an empty page is smaller than {} bytes", picture.len());
}

/// What a script finds when it asks the page: the same that the buttons do, and colours on the canvas.
#[test]
fn a_browser_colours_terms_filters_and_opens_where_it_went_wrong() {
    let Some(browser) = Browser::find() else { return };
    let Scene { recording, crashed, killed_at, from, to } = scene();
    let answers = browser.ask(
        &page(&recording, &about("liveness")),
        &format!(
            r"
            const page = window.hovercraft;
            const colour = (name) => {{
                const pen = Object.assign(document.createElement('canvas'), {{ width: 1, height: 1 }}).getContext('2d');
                pen.fillStyle = name;
                pen.fillRect(0, 0, 1, 1);
                return Array.from(pen.getImageData(0, 0, 1, 1).data.slice(0, 3));
            }};
            const first = page.drawn;
            const details = document.getElementById('details').textContent;
            page.setView({from}, {to});
            const all = page.drawn;
            const terms = all.terms.filter((term) => Math.min(term.to, {to}) - Math.max(term.from, {from}) > 1e6);
            const colours = terms.map((term) => {{
                const middle = (Math.max(term.from, {from}) + Math.min(term.to, {to})) / 2;
                return [term.term, page.colourAt(term.process, middle), colour(term.colour)];
            }});
            const blank = page.colourAt('n{crashed}', {killed_at} + ({to} - {killed_at}) * 0.7);
            page.wanted.processes[page.run.processes.indexOf('n{crashed}')] = false;
            const without = page.filter({{}});
            page.wanted.processes.fill(true);
            page.filter({{ kinds: page.run.kinds.map(() => false) }});
            const none = page.drawn;
            page.filter({{ kinds: page.run.kinds.map(() => true) }});
            page.zoom(1000);
            const whole = page.drawn;
            page.select('datagram', 0);
            const selected = document.getElementById('details').textContent;
            const press = (key) => document.body.dispatchEvent(new KeyboardEvent('keydown', {{ key, bubbles: true }}));
            const span = () => page.view.to - page.view.from;
            const spans = [span()];
            for (const key of ['+', '+', '-']) {{
                press(key);
                spans.push(span());
            }}
            press('Escape');
            const closed = document.getElementById('details').textContent;
            press('n');
            const next = document.getElementById('details').textContent;
            press('v');
            const canvas = document.getElementById('canvas');
            const box = canvas.getBoundingClientRect();
            page.setView({from}, {to});
            const bar = page.placeOf('n{crashed}', {killed_at} + 1e6);
            const at = {{ clientX: box.left + bar.x, clientY: box.top + bar.y, bubbles: true }};
            canvas.dispatchEvent(new PointerEvent('pointermove', at));
            const tip = document.getElementById('tip').textContent;
            canvas.dispatchEvent(new PointerEvent('pointerdown', at));
            canvas.dispatchEvent(new PointerEvent('pointerup', at));
            const clicked = document.getElementById('details').textContent;
            return {{
                first, details, colours, blank, all, without, none, whole, selected, spans, closed, next, tip, clicked,
            }};
            "
        ),
    );
    // It opens at the end, because that is where a cluster that does not recover is given up.
    let end = recording.end.as_nanos();
    assert_eq!(answers["first"]["violation"]["at"], json!(end));
    assert!(answers["first"]["to"].as_f64().unwrap() > end as f64);
    assert!(answers["details"].as_str().unwrap().contains(SENTENCE), "{}", answers["details"]);

    let colours = answers["colours"].as_array().unwrap();
    assert!(colours.len() >= 2, "{colours:?}");
    for term in colours {
        assert_eq!(term[1], term[2], "what is on the canvas is the term's colour");
        assert_ne!(term[1], answers["blank"]);
    }
    assert_ne!(colours[0][1], colours[1][1], "every term has its own colour");

    assert_eq!(answers["without"]["crashes"], json!([]), "the crash is in a column that is hidden");
    let of_others = |datagram: &&Datagram| ![datagram.from, datagram.to].contains(&Party::Node(crashed));
    let others = recording.datagrams().filter(|datagram| datagram.from != datagram.to).filter(of_others).count();
    assert_eq!(answers["without"]["shown"], json!(others));
    assert_eq!(answers["none"]["datagrams"], json!(0));
    let all = recording.datagrams().filter(|datagram| datagram.from != datagram.to).count();
    assert_eq!(answers["whole"]["datagrams"], json!(all));
    let first = recording.datagrams().next().unwrap();
    assert!(answers["selected"].as_str().unwrap().contains(&recording.summary(first)));

    // Keys and mouse.
    let spans: Vec<f64> = answers["spans"].as_array().unwrap().iter().map(|span| span.as_f64().unwrap()).collect();
    assert!(spans[1] < spans[0] && spans[2] < spans[1] && spans[3] > spans[2], "{spans:?}");
    assert_eq!(answers["closed"], "");
    assert!(answers["next"].as_str().unwrap().contains("datagram"), "{}", answers["next"]);
    let killed = format!("n{crashed} is killed");
    for seen in ["tip", "clicked"] {
        assert!(answers[seen].as_str().unwrap().contains(&killed), "{seen}: {}", answers[seen]);
    }
}

const SENTENCE: &str = "</script> is told as it is, & so is \"this\"";

fn about(verdict: &str) -> About {
    About {
        title: "A leader is killed".to_owned(),
        seed: Some(1),
        verdict: verdict.to_owned(),
        verdict_text: SENTENCE.to_owned(),
        draw: vec!["three nodes".to_owned()],
        command: "hovercraft sim replay --seed 1".to_owned(),
    }
}

/// A run, and what of it is to be in view (nanoseconds).
struct Scene {
    recording: Recording,
    crashed: u16,
    killed_at: u64,
    from: u64,
    to: u64,
}

fn scene() -> Scene {
    let config = WorldConfig {
        clients: 2,
        recording: Some(RecordingConfig { request: tell_request, reply: tell_reply, ..RecordingConfig::default() }),
        ..config_of(5, 3)
    };
    let mut world = World::new(config, Registers::default);
    let crashed = world.elect();
    call(&mut world, 0, Request::Add(1, 1));
    // What is on its way by now does not reach into the view.
    world.run_for(Duration::from_millis(1));
    let from = world.now().as_nanos();
    world.set_network(NetworkConfig { loss: 0.33, ..NetworkConfig::default() });
    for client in [0, 1] {
        for _ in 0..10 {
            world.submit(client, Kind::Write, Request::Add(1, 1).encode());
        }
    }
    world.run_for(Duration::from_millis(4));
    let killed_at = world.now().as_nanos();
    world.kill(crashed);
    let elected = world.run_until(Duration::from_secs(2), |world| world.leader().is_some());
    assert!(elected && world.leader() != Some(crashed));
    world.run_for(Duration::from_millis(20));
    let to = world.now().as_nanos();
    world.set_network(NetworkConfig::default());
    for client in [0, 1] {
        let open = 10 - world.completions(client).len();
        drain(&mut world, client, open);
    }
    let recording = world.take_recording().expect("the world records");
    // What is lost is drawn as long as it would have taken: how long that is, is the page's business.
    let is_early = |datagram: &Datagram| datagram.sent < Instant::from_nanos(from);
    assert!(recording.datagrams().all(|datagram| !is_early(datagram) || matches!(datagram.fate, Fate::Delivered(_))));
    Scene { recording, crashed, killed_at, from, to }
}

const WINDOW: [u32; 2] = [1400, 900];

/// How long a browser may take before it is stopped.
const PATIENCE: Duration = Duration::from_secs(120);

struct Browser {
    program: PathBuf,
}

impl Browser {
    fn find() -> Option<Self> {
        let given = std::env::var_os("HOVERCRAFT_CHROMIUM").map(PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let mut candidates = std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name)));
        let program = given.or_else(|| candidates.find(|candidate| candidate.is_file()));
        let Some(program) = program else {
            eprintln!("SKIPPED: no Chromium on the PATH; install one, or name it in HOVERCRAFT_CHROMIUM");
            return None;
        };
        // Some machines have one that cannot start: no sandbox, no shared memory.
        let browser = Self { program };
        let empty = browser.file("empty", "<p>nothing</p>");
        match browser.try_run(&empty, "", "--dump-dom") {
            Ok(dom) if String::from_utf8_lossy(&dom).contains("nothing") => Some(browser),
            found => {
                let found = found.map(|dom| String::from_utf8_lossy(&dom).into_owned());
                eprintln!("SKIPPED: {} does not open an empty page here: {found:?}", browser.program.display());
                None
            }
        }
    }

    /// A page on disk.
    fn file(&self, name: &str, page: &str) -> PathBuf {
        let file = scratch(name).with_extension("html");
        fs::write(&file, page).unwrap();
        file
    }

    /// What a page says it has drawn.
    fn drawn(&self, file: &Path, fragment: &str) -> Value {
        element(&self.dump(file, fragment), "<output id=\"drawn\" hidden=\"\">", "</output>")
    }

    /// What a script in the page returns.
    fn ask(&self, page: &str, script: &str) -> Value {
        let asks = "<pre id=\"answer\"></pre><script>document.getElementById('answer').textContent = \
                    JSON.stringify((() => {";
        let page = page.replacen("</body>", &format!("{asks}{script}}})());</script></body>"), 1);
        let file = self.file("asked", &page);
        element(&self.dump(&file, ""), "<pre id=\"answer\">", "</pre>")
    }

    fn dump(&self, file: &Path, fragment: &str) -> String {
        String::from_utf8(self.run(file, fragment, "--dump-dom")).unwrap()
    }

    fn screenshot(&self, file: &Path, fragment: &str) -> Vec<u8> {
        let picture = file.with_extension("png");
        self.run(file, fragment, &format!("--screenshot={}", picture.display()));
        fs::read(picture).unwrap()
    }

    fn run(&self, file: &Path, fragment: &str, what: &str) -> Vec<u8> {
        self.try_run(file, fragment, what).unwrap_or_else(|error| panic!("{}: {error}", self.program.display()))
    }

    fn try_run(&self, file: &Path, fragment: &str, what: &str) -> Result<Vec<u8>, String> {
        let profile = scratch("profile");
        let [width, height] = WINDOW;
        let mut child = Command::new(&self.program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--virtual-time-budget=2000"])
            .arg(format!("--window-size={width},{height}"))
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(what)
            .arg(format!("file://{}#{fragment}", file.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut stdout = child.stdout.take().unwrap();
        let (done, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = stdout.read_to_end(&mut bytes).map(|_| bytes);
            // Nobody listens if it was too late.
            _ = done.send(read);
        });
        let output = output.recv_timeout(PATIENCE);
        if output.is_err() {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        // The browser's last process may still write there.
        _ = fs::remove_dir_all(&profile);
        let output = output.map_err(|_| format!("it was not done after {PATIENCE:?}"))?;
        if status.success() { output.map_err(|error| error.to_string()) } else { Err(status.to_string()) }
    }
}

/// A path of this test's own that does not exist yet.
fn scratch(name: &str) -> PathBuf {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}-{number}", std::process::id()))
}

/// The JSON that an element of a page holds.
fn element(dom: &str, begin: &str, end: &str) -> Value {
    let (_, rest) = dom.rsplit_once(begin).unwrap_or_else(|| panic!("no {begin} in {dom:.2000}"));
    let (text, _) = rest.split_once(end).unwrap();
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\u{a0}").replace("&amp;", "&");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:.200}"))
}
