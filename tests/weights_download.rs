//! `radiograd weights`: files fetched from an HTTP server of the test's own, lists, and what is shown of a file.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use radiograd::weights::download::{DownloadError, Fetched, fetch, sha256_of};
use radiograd::weights::{NamedTensor, TensorData, save};

#[path = "common/program.rs"]
mod program;

use program::{command, complaint, finish, text};

/// Bytes of a file that no buffer holds at once.
fn content() -> Vec<u8> {
    (0..700_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// A server on a free port, which gives every request to `answer` until the test ends. Its address.
fn serve(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request);
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            answer(&path, &mut stream);
            let _ = stream.shutdown(Shutdown::Both);
        }
    });
    address
}

/// What the server of these tests answers by path.
fn server() -> String {
    serve(|path, stream| {
        let body = content();
        let head = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        let sent = match path {
            "/whole" => stream.write_all(head(body.len()).as_bytes()).and_then(|()| stream.write_all(&body)),
            "/open-ended" => stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").and_then(|()| stream.write_all(&body)),
            "/moved" => stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /whole\r\nContent-Length: 0\r\n\r\n"),
            "/huge" => stream.write_all(head(5 << 30).as_bytes()),
            p if p.starts_with("/cut") => {
                stream.write_all(head(body.len()).as_bytes()).and_then(|()| stream.write_all(&body[..300_000]))
            }
            p if p.starts_with("/other") => {
                stream.write_all(head(5).as_bytes()).and_then(|()| stream.write_all(b"other"))
            }
            _ => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngone"),
        };
        // A client that stops in the middle is one of the cases.
        drop(sent);
    })
}

/// Whether files can be fetched here; says so where not.
fn curl() -> bool {
    let there = std::process::Command::new("curl").arg("--version").output().is_ok_and(|o| o.status.success());
    if !there {
        eprintln!("skipped: the program curl is not there");
    }
    there
}

fn sum(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), bytes).expect("a file");
    sha256_of(file.path()).expect("a sum")
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).expect("a folder").count()
}

#[test]
fn whole_files_take_their_place_and_progress_is_told() {
    if !curl() {
        return;
    }
    let (base, body, dir) = (server(), content(), tempfile::tempdir().unwrap());
    let want = sum(&body);
    for (i, place) in ["whole", "moved", "open-ended"].into_iter().enumerate() {
        let path = dir.path().join("a new folder").join(place);
        let mut told: Vec<(u64, Option<u64>)> = Vec::new();
        let url = format!("{base}/{place}");
        let got =
            fetch(&url, &path, &want[..8], &AtomicBool::new(false), &mut |done, of| told.push((done, of))).unwrap();
        assert_eq!(got, Fetched { bytes: body.len() as u64, sha256: want.clone() }, "{place}");
        assert!(fs::read(&path).unwrap() == body, "{place}");
        let length = if place == "open-ended" { None } else { Some(body.len() as u64) };
        assert!(told.len() > 5 && told.is_sorted_by_key(|t| t.0), "{place}: {told:?}");
        assert_eq!((told[0], told[told.len() - 1]), ((0, length), (body.len() as u64, length)), "{place}");
        assert_eq!(entries(&dir.path().join("a new folder")), i + 1);
    }
}

#[test]
fn what_goes_wrong_keeps_the_old_file_and_leaves_nothing_else() {
    if !curl() {
        return;
    }
    let (base, dir) = (server(), tempfile::tempdir().unwrap());
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let path = dir.path().join("net.pth");
    fs::write(&path, b"old and good").unwrap();
    let want = sum(&content());
    let fails = |url: &str, words: &[&str]| {
        let error = fetch(url, &path, &want[..8], &AtomicBool::new(false), &mut |_, _| {}).unwrap_err();
        let line = error.to_string();
        assert!(words.iter().all(|w| line.contains(w)) && !line.contains('\n'), "{line}");
        assert_eq!((fs::read(&path).unwrap().as_slice(), entries(dir.path())), (&b"old and good"[..], 1), "{line}");
        error
    };
    let gone = fails(&format!("{base}/gone"), &["/gone", "404"]);
    assert!(matches!(gone, DownloadError::Status { status: 404, .. }), "{gone:?}");
    let cut = fails(&format!("{base}/cut"), &["300000 of 700001 bytes"]);
    assert!(matches!(cut, DownloadError::Truncated { got: 300_000, of: 700_001, .. }), "{cut:?}");
    let other = fails(&format!("{base}/other"), &["SHA-256", &want[..8], &sum(b"other")[..8]]);
    assert!(matches!(other, DownloadError::Checksum { .. }), "{other:?}");
    let nobody = fails(&nobody, &["cannot fetch", "127.0.0.1", "check the network"]);
    assert!(matches!(nobody, DownloadError::Unreachable { .. }), "{nobody:?}");
    fails("https://no-such-host.invalid/x", &["cannot fetch", "no-such-host.invalid"]);
    // Said to be larger than any weight file: not a byte of it is waited for.
    let huge = fails(&format!("{base}/huge"), &["more than", "nothing was kept"]);
    assert!(matches!(huge, DownloadError::TooLarge { .. }), "{huge:?}");
    // Others on the way could change what plain HTTP brings.
    let plain = fails("http://mirror.example/x", &["https://"]);
    assert!(matches!(plain, DownloadError::Address { .. }), "{plain:?}");

    let stop = AtomicBool::new(false);
    let stopped = fetch(&format!("{base}/whole"), &path, &want, &stop, &mut |done, _| {
        stop.store(done > 100_000, Ordering::Relaxed);
    });
    assert!(matches!(stopped, Err(DownloadError::Interrupted)), "{stopped:?}");
    assert_eq!((fs::read(&path).unwrap().as_slice(), entries(dir.path())), (&b"old and good"[..], 1));
}

#[test]
fn the_command_fails_in_one_line_and_keeps_nothing() {
    if !curl() {
        return;
    }
    let (base, dir) = (server(), tempfile::tempdir().unwrap());
    let fails = |args: &[&str], place: Option<String>, words: &[&str]| {
        let mut command = command(args);
        command.env("RADIOGRAD_CACHE", dir.path()).env("NO_PROXY", "127.0.0.1");
        command.envs(place.map(|p| ("RADIOGRAD_WEIGHTS_URL", p)));
        let line = complaint(&finish(command), args);
        assert!(words.iter().all(|w| line.contains(w)), "{line}");
    };
    let quiet = ["weights", "get", "resnet18", "--quiet"];
    fails(&quiet, Some(format!("{base}/gone/")), &["/gone/resnet18-f37072fd.pth", "404"]);
    fails(&quiet, Some(format!("{base}/cut")), &["300000 of 700001"]);
    fails(&quiet, Some(format!("{base}/other")), &["f37072fd", "nothing was kept"]);
    fails(&quiet, Some("ftp://x".to_owned()), &["http://"]);
    let url = format!("{base}/other");
    fails(
        &["weights", "get", "alexnet", "--quiet", "--url", &url],
        Some("http://127.0.0.1:9".to_owned()),
        &["7be5be79"],
    );
    fails(&["weights", "get", "resnet50"], None, &["resnet50", "resnet34"]);
    assert_eq!(entries(&dir.path().join("weights")), 0);
}

fn json(args: &[&str], cache: &Path) -> serde_json::Value {
    let mut command = command(args);
    command.env("RADIOGRAD_CACHE", cache);
    let out = finish(command);
    assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("JSON")
}

#[test]
fn the_list_says_what_is_here() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("weights/resnet34-b627a593.pth");
    fs::create_dir(dir.path().join("weights")).unwrap();
    fs::write(&file, b"12345").unwrap();
    let list = json(&["weights", "list", "--json"], dir.path());
    let all = list.as_array().expect("a list");
    assert_eq!(all.len(), 5);
    for entry in all {
        let here = entry["network"] == "resnet34";
        assert_eq!(entry["bytes"], if here { 5.into() } else { serde_json::Value::Null }, "{entry}");
        assert!(entry["url"].as_str().is_some_and(|u| u.starts_with("https://")), "{entry}");
    }
    // The name stands for the file, and a file that is none says so by its path.
    let mut show = command(&["weights", "show", "resnet34"]);
    show.env("RADIOGRAD_CACHE", dir.path());
    let line = complaint(&finish(show), &["weights", "show"]);
    assert!(line.contains("resnet34-b627a593.pth"), "{line}");
    let line = complaint(&finish(command(&["weights", "show", "densenet161"])), &["weights", "show"]);
    assert!(line.contains("radiograd weights get densenet161"), "{line}");
}

#[test]
fn a_file_is_shown_with_its_norms() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.safetensors");
    let tensor = |name: &str, shape: &[usize], data| NamedTensor { name: name.into(), shape: shape.into(), data };
    let tensors = [
        tensor("a.weight", &[2, 2], TensorData::F32(vec![1.0, -2.0, 2.0, 4.0])),
        tensor("a.bias", &[2], TensorData::F32(vec![0.5, f32::NAN])),
        tensor("bn.num_batches_tracked", &[], TensorData::I64(vec![7])),
    ];
    save(&path, &tensors, &[("made".to_owned(), "by\na test".to_owned())].into()).unwrap();
    let path = path.to_str().unwrap();
    let shown = json(&["weights", "show", path, "--json"], dir.path());
    assert_eq!(
        (shown["elements"].as_u64(), shown["bytes"].as_u64(), shown["not_finite"].as_u64()),
        (Some(7), Some(32), Some(1))
    );
    let row = |name: &str| shown["tensors"].as_array().unwrap().iter().find(|t| t["name"] == name).unwrap();
    assert_eq!((row("a.weight")["norm"].as_f64(), row("a.weight")["largest"].as_f64()), (Some(5.0), Some(4.0)));
    assert_eq!(
        (row("a.weight")["dtype"].as_str(), &row("a.weight")["shape"]),
        (Some("F32"), &serde_json::json!([2, 2]))
    );
    assert!(row("a.bias")["norm"].is_null());
    assert_eq!(row("bn.num_batches_tracked")["dtype"], "I64");
    let out = finish(command(&["weights", "show", path]));
    let out = text(&out.stdout);
    assert!(["3 tensors", "5.000000", "by\\na test", "NaN or infinite: 1"].iter().all(|w| out.contains(w)), "{out}");
}
