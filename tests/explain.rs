//! Explanations: every number that a page steps through against the executors, maps against the `f64` reference.

#[path = "common/explained.rs"]
mod explained;

use explained::Case;
use radiograd::cpu;
use radiograd::explain::stepped::{Stepped, Term, total};
use radiograd::explain::{Request, cam, evidence, explain};
use radiograd::graph::{Graph, NodeId};
use radiograd::nn::plan::Action;
use radiograd::nn::{Layer, Model};
use radiograd::store::Role;
use radiograd::tensor::relative_error;

/// Strides, gaps, groups, no bias, padding that differs, a block, and three channels.
const AWKWARD: &str =
    "conv6k3x5s2x1p1x2nb-relu-conv6d2p2g3-bn-relu-[conv6k3-relu]+-pool3s2p1-conv8k2s2p0-relu-flatten-dense3";

fn conv_steps(model: &Model) -> Vec<usize> {
    let conv = |i: &usize| matches!(model.steps()[*i].action, Action::Layer(Layer::Conv { .. }));
    (0..model.steps().len()).filter(conv).collect()
}

/// The sum of the terms is the executor's number, but for the order in which `f32` adds.
fn same(start: f32, terms: &[Term], executor: f32, what: &str) {
    let size: f64 = terms.iter().map(|t| (f64::from(t.a) * f64::from(t.b)).abs()).sum::<f64>() + f64::from(start.abs());
    let error = (total(start, terms) - f64::from(executor)).abs();
    assert!(error <= 1e-6 * size, "{what}: {} and {executor}, {error:e} of {size:e}", total(start, terms));
}

/// Every output pixel, pixel of dx and weight that a page can step through.
fn check_sums(t: &Stepped, what: &str) -> usize {
    let ([_, h, w], [_, oh, ow], [kh, kw]) = (t.x_shape, t.y_shape, t.kernel);
    let mut checked = 0;
    for place in 0..t.outputs.len() {
        for pixel in (0..oh * ow).map(|at| [at / ow, at % ow]) {
            let (found, at) = (t.forward(place, pixel), t.y_area.at(pixel));
            assert_eq!(found.is_some(), at.is_some());
            if let (Some((bias, terms)), Some(at)) = (found, at) {
                same(bias, &terms, t.y.0[place * t.y_area.numel() + at], &format!("{what} y {place} {pixel:?}"));
                checked += 1;
            }
        }
    }
    for place in 0..t.inputs.len() {
        for pixel in (0..h * w).map(|at| [at / w, at % w]) {
            let (found, at) = (t.input_gradient(place, pixel), t.dx_area.at(pixel));
            assert_eq!(found.is_some(), at.is_some());
            if let (Some(terms), Some(at)) = (found, at) {
                same(0.0, &terms, t.dx.0[place * t.dx_area.numel() + at], &format!("{what} dx {place} {pixel:?}"));
                checked += 1;
            }
        }
    }
    for (place, input) in (0..t.outputs.len()).flat_map(|o| (0..t.inputs.len()).map(move |c| (o, c))) {
        for tap in 0..kh * kw {
            let dw = t.dw.0[(place * t.inputs.len() + input) * kh * kw + tap];
            match t.weight_gradient(place, input, [tap / kw, tap % kw]) {
                Some(terms) => same(0.0, &terms, dw, &format!("{what} dw {place} {input} {tap}")),
                None if t.has_planes() => assert_eq!(dw, 0.0),
                None => continue,
            }
            checked += 1;
        }
    }
    checked
}

#[test]
fn each_number_of_a_stepped_convolution_is_the_executors() {
    for (text, input, classes) in [("cnn2", [1, 20, 20], 2), (AWKWARD, [3, 17, 22], 3)] {
        let case = Case::new(text, input, classes);
        let e = case.explained();
        for i in conv_steps(&case.model) {
            let name = &case.model.steps()[i].name;
            let t = e.layers[i].stepped.as_ref().unwrap_or_else(|| panic!("{text} {name} cannot be stepped through"));
            assert!(t.is_whole() && t.has_planes() && check_sums(t, name) > 100);
            assert_eq!((t.outputs.len(), t.inputs.len()), (t.y_shape[0], t.x_shape[0]), "all of a small layer");

            // The same bits as another program of the same executor, and the reference's values.
            let weight = case.model.steps()[i].params.start;
            let trainable = case.model.params()[..weight].iter().filter(|p| p.role == Role::Trainable).count();
            let nodes = |g: &Graph, steps: &[NodeId], grads: &[Option<NodeId>]| {
                let of_conv = |id: &NodeId| g.node(*id).kind() == "conv2d_input_grad" && g.node(*id).scope == *name;
                let dx = g.ids().find(of_conv).unwrap();
                vec![steps[i], grads[1 + i].unwrap(), dx, grads[1 + steps.len() + trainable].unwrap()]
            };
            let ours = [&t.y.0, &t.dy.0, &t.dx.0];
            let f32s = case.run(&mut cpu::Executor::<f32>::fast(), e.target, nodes);
            for (ours, theirs) in ours.iter().zip(&f32s) {
                let ours: Vec<f64> = ours.iter().map(|&v| f64::from(v)).collect();
                assert_eq!(&ours, theirs, "{text} {name}");
            }
            let f64s = case.run(&mut cpu::Executor::<f64>::reference(), e.target, nodes);
            for (ours, theirs) in ours.iter().zip(&f64s) {
                let ours: Vec<f64> = ours.iter().map(|&v| f64::from(v)).collect();
                assert!(relative_error(&ours, theirs) < 1e-5, "{text} {name}");
            }
            if t.groups == 1 {
                let dw: Vec<f64> = t.dw.0.iter().map(|&v| f64::from(v)).collect();
                assert_eq!(dw, f32s[3], "{text} {name}");
                assert!(relative_error(&dw, &f64s[3]) < 1e-5, "{text} {name}");
            }
        }
    }
}

#[test]
fn what_is_cut_to_size_still_adds_up_and_says_so() {
    let case = Case::new("conv24-relu-pool-conv40k3s2-relu-conv48-relu-flatten-dense2", [1, 48, 48], 2);
    let whole = case.explained();
    let (mut cut, mut parts) = (0, 0);
    for bytes in [500_000, 400_000, 300_000, 250_000] {
        let request = Request { bytes, ..case.request() };
        let e = explain(&mut cpu::Executor::<f32>::fast(), &request).unwrap();
        let json = serde_json::to_string(&e).unwrap();
        assert!(json.len() <= bytes, "{} of {bytes}", json.len());
        let stepped: Vec<&Stepped> = e.layers.iter().filter_map(|l| l.stepped.as_ref()).collect();
        assert!(!stepped.is_empty() && whole.notes.len() < e.notes.len(), "{:?}", e.notes);
        for t in stepped {
            assert!(check_sums(t, "cut") > 10);
            cut += usize::from(t.outputs.len() < t.y_shape[0] && t.columns.is_some());
            parts += usize::from(!t.is_whole());
        }
        for note in &e.notes {
            assert!(!note.contains('\n') && note.ends_with('.'), "{note}");
        }
    }
    assert!(cut > 0 && parts > 0, "no column of weights was kept apart: {cut}, or no part of a layer: {parts}");
}

#[test]
fn layers_that_do_not_fit_are_stepped_around_the_loudest_place() {
    let case = Case::new("conv12s1-relu-conv16k5s2p1-relu-conv6d2p2g2-relu-pool4-flatten-dense2", [1, 120, 120], 2);
    let whole = case.explained();
    // x of the second and dy of the first have 172,800 numbers, x of the third 55,696.
    let convs: Vec<&Stepped> = whole.layers.iter().filter_map(|l| l.stepped.as_ref()).collect();
    assert_eq!(convs.iter().map(|t| t.is_whole()).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!((convs[0].x.0.len(), convs[0].y_area.numel()), (14_400, 14_400));
    assert!(convs[0].dx_area.numel() < 14_400 && convs[0].dx_area.numel() > 100, "{:?}", convs[0].dx_area);
    assert!(convs[1].y_area.numel() > 100 && convs[1].x.0.len() <= 40_960, "{:?}", convs[1].y_area);
    assert!(convs.iter().all(|t| t.has_planes() && check_sums(t, "loud") > 500));
    assert!(whole.notes.iter().any(|n| n.starts_with("2 of the convolutions can be stepped through only around")));
    // Where a plane alone is too much, weights are left out.
    let all = Request { bytes: 40_000, ..case.request() };
    let e = explain(&mut cpu::Executor::<f32>::fast(), &all).unwrap();
    let last = e.layers.iter().find_map(|l| l.stepped.as_ref()).unwrap();
    assert!(check_sums(last, "small") > 10);
}

#[test]
fn grad_cam_is_the_references() {
    for (text, input, classes) in [
        ("cnn3", [1, 24, 24], 2),
        (AWKWARD, [3, 17, 22], 3),
        ("conv5-bn-relu-pool-conv7-relu-gap-flatten-dense1", [1, 12, 12], 2),
    ] {
        let case = Case::new(text, input, classes);
        let e = case.explained();
        let places = cam::places(&case.model);
        assert_eq!(e.cams.len(), places.len() * e.classes.len());
        assert_eq!(e.cam_layer, places.last().map(|p| p.step));
        for view in &e.cams {
            let [c, h, w] = *<&[usize; 3]>::try_from(case.model.steps()[view.layer].output.dims()).unwrap();
            let values = case.run(&mut cpu::Executor::<f64>::reference(), view.class, |_, steps, grads| {
                vec![steps[view.layer], grads[1 + view.layer].unwrap()]
            });
            let (a, g) = (&values[0], &values[1]);
            let mut map = vec![0.0f64; h * w];
            for k in 0..c {
                let alpha = g[k * h * w..(k + 1) * h * w].iter().sum::<f64>() / (h * w) as f64;
                (0..h * w).for_each(|p| map[p] += alpha * a[k * h * w + p]);
            }
            let most = map.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            for (ours, theirs) in view.values.0.iter().zip(&map) {
                let error = (f64::from(*ours) - theirs.max(0.0)).abs();
                assert!(error <= 1e-5 * most.clamp(1e-3, 1.0), "{text} {}: {ours} and {theirs}", view.layer);
            }
            assert!(e.classes.contains(&view.class));
        }
        // The short way gives the same maps.
        let (logits, found) = evidence(&mut cpu::Executor::<f32>::fast(), &case.request(), e.target).unwrap();
        assert_eq!(logits, e.logits);
        assert_eq!(e.by_place, !text.contains("gap"));
        for found in found {
            let view = e.cams.iter().find(|v| (v.layer, v.class) == (found.place.step, e.target)).unwrap();
            assert_eq!((found.grad_cam(), found.hires_cam()), (view.values.0.clone(), view.hires.0.clone()));
        }
    }
}

#[test]
fn saliency_occlusion_winners_and_paths_are_what_they_say() {
    let case = Case::new("cnn2", [1, 24, 24], 2);
    let e = case.explained();
    let steps = case.model.steps();
    let all = case.run(&mut cpu::Executor::<f64>::reference(), e.target, |_, steps, grads| {
        [grads[0].unwrap()].into_iter().chain(steps.iter().copied()).collect()
    });
    // Saliency, to half a step of a byte.
    let view = e.saliency.iter().find(|s| s.class == e.target).unwrap();
    let step = f64::from(view.map.high) / 255.0;
    for (ours, theirs) in view.map.values().iter().zip(&all[0]) {
        assert!((f64::from(*ours) - theirs.abs() / (255.0 * 0.25)).abs() < 0.52 * step + 1e-9);
    }
    // Which pixel won: it has the pool's value.
    for (i, l) in e.layers.iter().enumerate().filter(|(_, l)| l.winners.is_some()) {
        let winners = l.winners.as_ref().unwrap();
        let ([_, h, w], [_, oh, ow]) = (
            <[usize; 3]>::try_from(steps[i - 1].output.dims()).unwrap(),
            <[usize; 3]>::try_from(steps[i].output.dims()).unwrap(),
        );
        let (x, y) = (&all[i], &all[i + 1]);
        for (k, &c) in winners.channels.iter().enumerate() {
            for at in 0..oh * ow {
                let won = usize::from(winners.data.0[k * oh * ow + at]);
                let row = at / ow * winners.stride[0] + won / winners.kernel[1];
                let column = at % ow * winners.stride[1] + won % winners.kernel[1];
                let (x, y) = (x[(c * h + row) * w + column], y[c * oh * ow + at]);
                assert!((x - y).abs() < 1e-5, "{} {c} {at}: {x} {y}", l.name);
            }
        }
        assert_eq!(winners.channels.len(), steps[i].output[0]);
    }
    // A covered corner, asked of the network directly.
    let o = &e.occlusion;
    let mut covered = Case::new("cnn2", [1, 24, 24], 2);
    let plain = case.request();
    let (before, _) = evidence(&mut cpu::Executor::<f32>::fast(), &plain, 0).unwrap();
    let grey = case.x().iter().sum::<f64>() / 576.0;
    assert!((f64::from(o.fill[0]) - grey).abs() < 1e-6);
    // Bytes alone can be given, so the mean is rounded to one.
    let byte = ((grey * 0.25 + 0.45) * 255.0).round() as u8;
    for row in 0..o.patch[0] {
        covered.pixels[row * 24..row * 24 + o.patch[1]].fill(byte);
    }
    let (after, _) = evidence(&mut cpu::Executor::<f32>::fast(), &covered.request(), 0).unwrap();
    for class in &o.classes {
        let change = after[class.class] - before[class.class];
        assert!((class.logit.0[0] - change).abs() < 2e-3, "{} {change}", class.logit.0[0]);
        assert_eq!(class.logit.0.len(), o.places[0] * o.places[1]);
    }
    // The strongest channel of the last layer, by the reference.
    let last = cam::places(&case.model).pop().unwrap();
    let of_last = case
        .run(&mut cpu::Executor::<f64>::reference(), e.target, |_, s, g| vec![s[last.step], g[1 + last.step].unwrap()]);
    let plane = last.shape[1] * last.shape[2];
    let part = |k: usize| (k * plane..(k + 1) * plane).map(|p| of_last[0][p] * of_last[1][p]).sum::<f64>();
    let path = e.paths.iter().find(|p| p.class == e.target).unwrap();
    assert_eq!(path.stages.len(), 2);
    let first = path.stages[0].channels[0];
    let best = (0..last.shape[0]).map(part).fold(f64::NEG_INFINITY, f64::max);
    assert!((first.part - best).abs() < 1e-5 * best.abs() && (part(first.channel) - best).abs() < 1e-5 * best.abs());
    assert!(path.stages.iter().flat_map(|s| &s.channels).all(|c| c.share > 0.0 && c.share <= 1.0));
}
