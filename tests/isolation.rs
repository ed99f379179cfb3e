//! What the program keeps to itself: no network, no code of others, nothing outside its folders, no `unsafe` without its proof,
//! no name that breaks out of a page.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[allow(dead_code, reason = "only some of the laboratory is needed here")]
#[path = "common/lab.rs"]
mod lab;
#[path = "common/program.rs"]
mod program;

use lab::{Lab, picture, training};
use program::{command, finish, text};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder of the repository, with their paths in it.
fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry")) {
            match entry.path() {
                path if path.is_dir() => walk(&path, into),
                path if path.extension().is_some_and(|e| e == "rs") => into.push(path),
                _ => {}
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(folder), &mut paths);
    paths.sort();
    let named = |path: PathBuf| {
        let name = path.strip_prefix(root()).expect("below it").to_string_lossy().replace('\\', "/");
        (name, fs::read_to_string(path).expect("a file"))
    };
    paths.into_iter().map(named).collect()
}

/// The code of a line, as far as a `//` that no quotation mark stands before.
fn code(line: &str) -> &str {
    match line.find("//") {
        Some(at) if !line[..at].contains('"') => &line[..at],
        _ => line,
    }
}

/// Files with lines whose code has one of the words, and how many of them.
fn files_with(words: &[&str]) -> Vec<(String, usize)> {
    let count = |text: &str| text.lines().filter(|l| words.iter().any(|w| code(l).contains(w))).count();
    sources("src").iter().map(|(name, text)| (name.clone(), count(text))).filter(|f| f.1 > 0).collect()
}

#[test]
fn unsafe_stands_in_three_places_with_its_proof() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("a file");
    assert!(lib.contains("#![deny(unsafe_code)]"));
    let places = ["src/cpu/fast/gemm.rs", "src/gpu/pipeline_disk.rs", "src/gpu/pipelines.rs"];
    // `#[allow(unsafe_code)]` and the block itself.
    assert_eq!(files_with(&["unsafe {", "unsafe_code)]"]).iter().filter(|f| f.0 != "src/lib.rs").count(), 3);
    for (name, lines) in files_with(&["unsafe"]) {
        if name != "src/lib.rs" {
            assert!(places.contains(&name.as_str()), "{name}: unsafe code stands here without a place in this test");
            assert_eq!(lines, 2, "{name}: one allowance and one block");
        }
    }
    for (name, text) in sources("src").iter().filter(|s| places.contains(&s.0.as_str())) {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let at = lines.iter().position(|l| *l == "#[allow(unsafe_code)]").expect("an allowance");
        assert!(lines[at + 1].starts_with("unsafe {"), "{name}");
        let proof: Vec<&&str> = lines[..at].iter().rev().take_while(|l| l.starts_with("//")).collect();
        assert!(proof.len() >= 3 && proof.last().is_some_and(|l| l.starts_with("// SAFETY: ")), "{name}: no proof");
    }
    // What is linked without Rust's rules: nothing.
    assert_eq!(files_with(&["extern \"C\"", "no_mangle", "asm!", "static mut"]), []);
}

#[test]
fn the_only_way_to_the_network_is_curl_in_one_place() {
    let sockets = ["std::net", "TcpStream", "TcpListener", "UdpSocket", "UnixStream", "ToSocketAddrs", "SocketAddr"];
    assert_eq!(files_with(&sockets), []);
    let started: Vec<String> = files_with(&["Command::new("]).into_iter().map(|f| f.0).collect();
    // `main.rs` starts the program itself once more, in its own place.
    assert_eq!(started, ["src/main.rs", "src/weights/download.rs"]);
    assert_eq!(files_with(&["download::", "download::{"]).iter().filter(|f| !f.0.starts_with("src/cli/")).count(), 0);
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("a lock file");
    let packages: BTreeSet<&str> =
        lock.lines().filter_map(|l| l.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    assert!(packages.len() > 50);
    // `tokio` is listed for Emscripten alone, where nothing of this runs; `scripts/deny.sh` sees to the others.
    for network in [
        "attohttpc",
        "curl",
        "h2",
        "http",
        "hyper",
        "isahc",
        "mio",
        "native-tls",
        "openssl",
        "quinn",
        "reqwest",
        "rustls",
        "socket2",
        "surf",
        "tungstenite",
        "ureq",
    ] {
        assert!(!packages.contains(network), "{network}");
    }
}

#[test]
fn archives_are_read_and_never_unpacked() {
    assert_eq!(files_with(&[".extract(", "enclosed_name", "mangled_name", "extract_unwrapped"]), []);
    // Entries whose names lead elsewhere are names like others: nothing is written.
    let lab = Lab::new();
    let outside = lab.dir.path().join("outside");
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for name in ["../outside", "/tmp/radiograd-outside", "model/../../outside", "model/data.pkl", "train_images.npy"] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).expect("an entry");
        std::io::Write::write_all(&mut zip, b"\x80\x02}.").expect("bytes");
    }
    let bytes = zip.finish().expect("an archive").into_inner();
    lab.write("evil.npz", &bytes);
    lab.write("evil.pth", &bytes);
    lab.fails(&["data", "summary", "evil.npz"], &["evil.npz"]);
    lab.output(&["weights", "show", "evil.pth"], &[]);
    lab.training_fails(&[("--init", "evil.pth")], &["evil.pth"]);
    assert!(!outside.exists() && !Path::new("/tmp/radiograd-outside").exists());
    assert_eq!(fs::read_dir(lab.dir.path()).expect("a folder").count(), 3);
}

/// Names that would be elements, attributes, ends of scripts and templates.
const EVIL: [&str; 3] = ["<img src=x onerror=alert(1)>", "\"'><b>{{7*7}}", "<script>alert(2)"];

/// Nothing of these names stands in a page as anything but text.
fn is_harmless(name: &str, page: &str) {
    let lower = page.to_lowercase();
    for broken in ["<img src=x", "<script>alert", "<b>{{", "'><b>"] {
        assert!(!lower.contains(broken), "{name}: {broken}");
    }
    assert!(!page.contains("49}}") && !page.contains("<b>49"), "{name}: a template ran");
    let scripts = if name.contains("explain") { 2 } else { 0 };
    assert_eq!(lower.matches("<script").count(), scripts, "{name}");
    assert_eq!(lower.matches("</script").count(), scripts, "{name}");
    assert!(page.contains("Content-Security-Policy") && page.contains("default-src 'none'"), "{name}");
}

#[test]
#[cfg(unix)]
fn no_name_breaks_out_of_a_page() {
    let lab = Lab::new();
    let data = "data <i>&amp;";
    for (split, count) in [("train", 12), ("test", 4)] {
        for (k, class) in [EVIL[0], EVIL[1]].iter().enumerate() {
            let folder = lab.path(data).join(split).join(class);
            fs::create_dir_all(&folder).expect("a folder");
            for i in 0..count {
                picture(&folder.join(format!("{} {i}.png", EVIL[(k + i as usize) % 3])), k as u32, i);
            }
            fs::write(folder.join(format!("{}.png", EVIL[2])), b"broken").expect("a file");
        }
    }
    let mut pages = Vec::new();
    for run in [EVIL[2], EVIL[0]] {
        let out = format!("{run} run");
        let out: &'static str = out.leak();
        lab.succeeds(&training(&[("--data", data), ("--out", out)]));
        pages.push((format!("run {run}"), fs::read_to_string(lab.path(out).join("report.html")).expect("a page")));
    }
    let (first, second) = (format!("{} run", EVIL[2]), format!("{} run", EVIL[0]));
    let note = "</script><script>alert(2)</script><img src=x onerror=alert(1)>";
    lab.succeeds(&["compare", first.as_str(), second.as_str(), "--out", "compared.html", "--quiet", "--note", note]);
    let film = lab.path(data).join("test").join(EVIL[0]).join(format!("{} 0.png", EVIL[0]));
    let film = film.to_str().expect("UTF-8");
    lab.succeeds(&["explain", "--device", "cpu", "--run", first.as_str(), film, "--out", "explain.html"]);
    lab.succeeds(&[
        "explain",
        "--device",
        "cpu",
        "--run",
        &first,
        "--compare",
        &second,
        film,
        "--out",
        "explain2.html",
    ]);
    let grid = "[base]\nsize = 16\nepochs = 1\nbatch = 4\nmodel = 'conv4-relu-pool-flatten-dense2'\n[grid]\nlr = [0.01, 0.001]\n";
    lab.write("grid.toml", grid);
    let found = format!("{} search", EVIL[1]);
    lab.succeeds(&["search", "grid.toml", "--data", data, "--device", "cpu", "--quiet", "--out", found.as_str()]);
    let mut all = Vec::new();
    html_below(lab.dir.path(), &mut all);
    for path in all {
        let name = path.strip_prefix(lab.dir.path()).expect("below it").display().to_string();
        pages.push((name, fs::read_to_string(&path).expect("a page")));
    }
    assert!(pages.len() >= 8, "{:?}", pages.iter().map(|p| &p.0).collect::<Vec<_>>());
    for (name, page) in &pages {
        is_harmless(name, page);
    }
    let shown = pages.iter().filter(|(_, page)| page.contains("&lt;img src=x") || page.contains("\\u003cimg src=x"));
    assert!(shown.count() >= 6, "the names are there, as text");
    // SVG files are opened by themselves too.
    for path in svgs(&lab.path(&first)) {
        let text = fs::read_to_string(&path).expect("a picture");
        roxmltree::Document::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(!text.contains("<script"), "{}", path.display());
    }
}

fn html_below(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()) {
        match entry.is_dir() {
            true => html_below(&entry, into),
            false if entry.extension().is_some_and(|e| e == "html") => into.push(entry),
            false => {}
        }
    }
}

fn svgs(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()) {
        match entry.is_dir() {
            true => found.extend(svgs(&entry)),
            false if entry.extension().is_some_and(|e| e == "svg") => found.push(entry),
            false => {}
        }
    }
    found
}

/// Pages put text into place by templates that escape; what is left as it is, is known.
#[test]
fn templates_leave_only_our_own_text_unescaped() {
    let folder = root().join("src/report/templates");
    let mut kept: BTreeSet<String> = BTreeSet::new();
    for folder in [folder.clone(), folder.join("explain")] {
        for path in fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()) {
            if path.extension().is_some_and(|e| e == "html") {
                let text = fs::read_to_string(&path).expect("a template");
                assert!(!text.contains("autoescape"), "{}", path.display());
                let safe = text.match_indices("{{").filter_map(|(at, _)| text[at + 2..].split("}}").next());
                kept.extend(
                    safe.filter(|e| e.contains("safe")).map(|e| e.split('|').next().unwrap_or("").trim().to_owned()),
                );
            }
        }
    }
    // Style sheets and scripts of the crate, PNG as base64, SVG that escapes by itself, JSON without `<`.
    let known = ["card.src", "data", "figure.svg", "page_style", "plot_style", "script", "style", "tile.src"];
    assert_eq!(kept.iter().map(String::as_str).collect::<Vec<_>>(), known);
    // Scripts make elements and give them text.
    let scripts = fs::read_dir(folder.join("explain")).expect("a folder").map(|e| e.expect("an entry").path());
    let scripts: Vec<_> = scripts.filter(|path| path.extension().is_some_and(|e| e == "js")).collect();
    assert!(scripts.len() > 5, "{scripts:?}");
    for script in scripts {
        let text = fs::read_to_string(&script).expect("a script");
        let script = script.display();
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "fetch(",
            "XMLHttpRequest",
            "WebSocket",
            "sendBeacon",
        ] {
            assert!(!text.contains(way), "{script}: {way}");
        }
    }
}

/// Runs under `strace`, where there is one: no command asks for a socket of the internet.
#[test]
#[cfg(target_os = "linux")]
fn commands_open_no_socket() {
    let lab = Lab::new();
    lab.run("run");
    let works = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    if !works.is_ok_and(|out| out.status.success()) {
        eprintln!("SKIPPED: strace is not there or may not trace");
        return;
    }
    let image = lab.files("ok/test/NORMAL")[0].clone();
    let image = image.to_str().expect("UTF-8");
    let train = training(&[("--out", "traced")]);
    let commands: [&[&str]; 6] = [
        &train,
        &["eval", "--quiet", "--run", "run", "--data", "ok", "--split", "test", "--device", "cpu"],
        &["predict", "--quiet", "--run", "run", "--device", "cpu", image],
        &["explain", "--quiet", "--run", "run", "--device", "cpu", image, "--out", "page.html"],
        &["data", "summary", "ok"],
        &["weights", "list"],
    ];
    for args in commands {
        let (plain, log) = (command(args), lab.path("trace.txt"));
        let mut traced = Command::new("strace");
        traced.args(["-f", "-e", "trace=socket,connect,sendto,execve", "-o"]).arg(&log);
        traced.arg(plain.get_program()).args(plain.get_args()).current_dir(lab.dir.path());
        for (key, value) in plain.get_envs() {
            traced.env(key, value.unwrap_or_default());
        }
        traced.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        traced.stderr(std::process::Stdio::piped());
        let out = finish(traced);
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
        let log = fs::read_to_string(&log).expect("a trace");
        assert!(log.contains("execve("), "{args:?}: nothing was traced");
        let asked: Vec<&str> = log.lines().filter(|l| l.contains("AF_INET") || l.contains("curl")).collect();
        assert!(asked.is_empty(), "{args:?}: {asked:?}");
    }
}

/// Every crate that is compiled in may be used so: `deny.toml` says how, and `scripts/deny.sh` checks more than this.
#[test]
fn licences_are_those_that_are_allowed() {
    let rules: toml::Table = fs::read_to_string(root().join("deny.toml")).expect("deny.toml").parse().expect("TOML");
    let allowed: BTreeSet<&str> =
        rules["licenses"]["allow"].as_array().expect("a list").iter().filter_map(|l| l.as_str()).collect();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let out = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo");
    if !out.status.success() {
        eprintln!("SKIPPED: cargo metadata does not run offline here: {}", String::from_utf8_lossy(&out.stderr));
        return;
    }
    let data: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let packages = data["packages"].as_array().expect("packages");
    let exceptions = rules["licenses"]["exceptions"].as_array().expect("a list");
    let excepted: BTreeSet<&str> = exceptions.iter().filter_map(|e| e["crate"].as_str()).collect();
    assert!(packages.len() > 50);
    for package in packages {
        let (name, licence) = (&package["name"], package["license"].as_str().unwrap_or_default());
        // `MIT OR Apache-2.0`: one of them; `(A OR B) AND C`: C and one of them.
        let fine = licence
            .replace(['(', ')'], "")
            .split(" AND ")
            .all(|part| part.split(" OR ").flat_map(|p| p.split('/')).any(|one| allowed.contains(one.trim())));
        let fine = fine || package["name"].as_str().is_some_and(|n| excepted.contains(n));
        assert!(fine && !licence.is_empty(), "{name}: {licence:?} is not among those of deny.toml");
        let source = package["source"].as_str().unwrap_or("here");
        assert!(source == "here" || source.starts_with("registry+"), "{name} comes from {source}");
    }
}
