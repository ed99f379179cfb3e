//! Explain pages: how long they get, what they are made of, what `explain` refuses. `scripts/look_at_explain.py` opens them in a browser.

#[allow(dead_code, reason = "the numbers are looked at elsewhere")]
#[path = "common/explained.rs"]
mod explained;
#[allow(dead_code, reason = "only some of the laboratory is needed here")]
#[path = "common/lab.rs"]
mod lab;
#[path = "common/program.rs"]
mod program;

use std::fs;

use explained::Case;
use lab::Lab;
use radiograd::cpu;
use radiograd::explain::{ExplainError, Explanation, Request, evidence, explain};
use radiograd::report::explain::{SCRIPT, explain_page};

#[test]
fn large_networks_keep_to_the_limit() {
    let case = Case::new("resnet18", [1, 64, 64], 2);
    let e = case.explained();
    let page = explain_page(std::slice::from_ref(&e)).unwrap();
    assert!(page.len() < 5_000_000, "{}", page.len());
    assert_eq!(e.layers.len(), case.model.steps().len());
    assert!(e.layers.iter().filter(|l| l.stepped.is_some()).count() >= 4);
    let shown = e.layers.iter().filter_map(|l| l.maps.as_ref());
    assert!(shown.clone().count() > 50 && shown.clone().all(|m| !m.channels.is_empty()));
    // A way goes on to the image, or ends where nothing speaks for its channel.
    for path in &e.paths {
        let ended = path.stages.last().is_some_and(|s| s.channels.is_empty());
        assert!(path.stages.len() == radiograd::explain::path::MAX_STAGES || ended, "{path:?}");
    }
    assert!(e.notes.iter().any(|n| n.contains("cannot be stepped through")));
}

#[test]
fn large_images_keep_to_the_limit() {
    let note = |e: &Explanation, words: &str| e.notes.iter().any(|n| n.contains(words));
    // Of 448 x 448 pixels, a global mean behind: two maps for each class and convolution are 10 MB.
    let case = Case::new("conv4-relu-conv4-relu-conv4-relu-conv4-relu-gap-flatten-dense2", [1, 448, 448], 2);
    let e = case.explained();
    let page = explain_page(std::slice::from_ref(&e)).unwrap();
    assert!(page.len() < 5_000_000, "{}", page.len());
    assert!(
        note(&e, "Grad-CAM and HiResCAM of relu1, relu2, relu3, relu4 are shown shrunk") && !note(&e, "kB"),
        "{:?}",
        e.notes
    );
    let found = |class| evidence(&mut cpu::Executor::<f32>::fast(), &case.request(), class).unwrap().1;
    for (view, evidence) in [(1, found(0)), (7, found(1))].map(|(at, evidence)| (&e.cams[at], evidence)) {
        let place = e.cams.iter().filter(|v| v.class == view.class).position(|v| v.layer == view.layer).unwrap();
        let (by, full) = (view.shrunk, evidence[place].grad_cam());
        assert!(by > 1 && view.height == 448usize.div_ceil(by) && view.values.0.len() == view.height * view.width);
        let mean = (0..by * by).map(|p| f64::from(full[p / by * 448 + p % by])).sum::<f64>() / (by * by) as f64;
        assert!((f64::from(view.values.0[0]) - mean).abs() <= 1e-6 * mean, "{} and {mean}", view.values.0[0]);
    }
    // Less room than the image itself takes: all is cut to the least, and said.
    let little = Request { bytes: 60_000, ..case.request() };
    let e = explain(&mut cpu::Executor::<f32>::fast(), &little).unwrap();
    let length = serde_json::to_vec(&e).unwrap().len();
    assert!(length > 448 * 448 && length < 448 * 448 * 4 / 3 + 150_000, "{length}");
    assert!(
        note(&e, "more than the 60 kB") && note(&e, "Saliency and the picture of the strongest path"),
        "{:?}",
        e.notes
    );
    assert!(e.saliency.iter().all(|s| s.map.data.0.len() == 448usize.div_ceil(s.shrunk).pow(2)));
    assert!(e.paths.iter().all(|p| p.image.data.0.len() == 448usize.div_ceil(p.shrunk).pow(2)));
}

#[test]
fn the_script_is_all_of_its_parts() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/report/templates/explain");
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|e| e == "js") {
            let part = fs::read_to_string(&path).unwrap();
            assert!(SCRIPT.contains(&part), "{} is in no page", path.display());
            assert!(part.lines().count() <= 400, "{} is long", path.display());
        }
    }
}

#[test]
fn a_page_is_whole_and_what_it_shows_cannot_break_out() {
    let one = Case::new("mlp", [1, 8, 8], 2).explained();
    assert!(one.cams.is_empty() && one.paths.is_empty() && one.cam_layer.is_none());
    let two = Case::new("conv4-relu-pool-flatten-dense1", [1, 8, 8], 2).explained();
    for page in [explain_page(std::slice::from_ref(&one)).unwrap(), explain_page(&[one, two]).unwrap()] {
        // Only the scripts that belong there, and nothing from elsewhere.
        assert_eq!(page.matches("<script").count(), 2);
        assert_eq!(page.matches("</script>").count(), 2);
        assert!(!page.contains("alert(1)</script>") && page.contains("not a medical device"));
        let inside = page.replace("http://www.w3.org/2000/svg", "");
        assert!(inside.contains("function radiogradExplain(root, data)"));
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!inside.contains(outside), "{outside}");
        }
        let data = page.split("id=\"explain-data\">").nth(1).unwrap().split("</script>").next().unwrap();
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        let first = data.get("compare").map_or(&data, |c| &c[0]);
        assert_eq!(first["image"]["name"], "film </script><script>alert(1)</script>.png");
    }
}

#[test]
fn requests_that_do_not_fit_are_refused() {
    let case = Case::new("conv4-relu-flatten-dense2", [1, 8, 8], 2);
    let run = |change: &dyn Fn(&mut Request<'_>)| {
        let mut request = case.request();
        change(&mut request);
        let error = explain(&mut cpu::Executor::<f32>::fast(), &request).unwrap_err();
        assert!(!error.to_string().contains('\n'), "{error}");
        error
    };
    assert!(matches!(run(&|r| r.pixels = &[1, 2]), ExplainError::Image { got: 2, .. }));
    assert!(matches!(run(&|r| r.mean = &[]), ExplainError::Count { what: "mean", .. }));
    assert!(matches!(run(&|r| r.classes = &[]), ExplainError::Count { .. }));
    assert!(matches!(run(&|r| r.label = Some(2)), ExplainError::Class { class: 2, classes: 2 }));
    assert!(matches!(run(&|r| r.target = Some(9)), ExplainError::Class { .. }));
    let mut broken = case.store.clone();
    broken.set_value(0, &vec![f32::NAN; broken.value(&broken.params()[0]).len()]);
    let request = Request { store: &broken, ..case.request() };
    assert!(matches!(explain(&mut cpu::Executor::<f32>::fast(), &request), Err(ExplainError::NotFinite)));
}

#[test]
fn the_command_writes_pages_and_says_what_is_wrong() {
    let lab = Lab::new();
    lab.run("run");
    let film = &lab.files("ok/test/PNEUMONIA")[0];
    let film = film.to_str().unwrap();
    let explain = |more: &[&'static str]| -> Vec<String> {
        let words = ["explain", "--device", "cpu", "--run", "run"];
        words.iter().chain(more).map(|w| w.replace("FILM", film)).collect()
    };
    let ok = |more: &[&'static str]| {
        let args = explain(more);
        lab.succeeds(&args.iter().map(String::as_str).collect::<Vec<_>>());
    };
    ok(&["FILM", "--out", "page.html", "--label", "pneumonia"]);
    let page = fs::read_to_string(lab.path("page.html")).unwrap();
    assert!(page.contains("radiogradExplain(") && page.len() < 5_000_000);
    ok(&["FILM", "--out", "two.html", "--compare", "run", "--class", "NORMAL"]);
    ok(&["FILM", "--out", "data.json"]);
    let data: serde_json::Value = serde_json::from_slice(&fs::read(lab.path("data.json")).unwrap()).unwrap();
    assert_eq!(data["model"]["classes"], serde_json::json!(["NORMAL", "PNEUMONIA"]));

    let fails = |more: &[&'static str], words: &[&str]| {
        let args = explain(more);
        lab.fails(&args.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    fails(&["FILM", "--out", "page.txt"], &["--out", ".html"]);
    fails(&["FILM", "--out", "page.html", "--label", "FLU"], &["--label", "FLU", "NORMAL, PNEUMONIA"]);
    fails(&["FILM", "--out", "page.html", "--class", "FLU"], &["--class", "FLU"]);
    fails(&["FILM", "--out", "run/report.html"], &["report of a run"]);
    fails(&["nothing.png", "--out", "page.html"], &["nothing.png"]);
    fails(&["FILM", "--out", "no/such/folder/page.html"], &["page.html"]);
    fails(&["FILM", "--out", "page.html", "--compare", "elsewhere"], &["elsewhere"]);
}
