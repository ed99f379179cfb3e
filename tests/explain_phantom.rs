//! Where the maps of the last convolution point, on images that know where their opacity is: needs a cnn3 trained on the phantom set,
//! which `scripts/cam_phantom.sh` trains. `RADIOGRAD_PHANTOM_RUN` names its run folder; without it the test says that it was skipped.
//!
//! A cnn3 flattens 8x8 pixels into a dense layer, which weighs each place by itself. Grad-CAM takes the mean of the gradient over all
//! places, which says little unless training has seen opacities everywhere: so the script's network is trained on images that are moved
//! about (`docs/explain.md`). HiResCAM does without that mean, and must point there too.

use std::path::Path;

use radiograd::cpu;
use radiograd::data::phantom::{Opacity, PhantomImage, generate};
use radiograd::explain::cam::upsample;
use radiograd::explain::{DEFAULT_BYTES, Request, evidence, probabilities};
use radiograd::train::infer::Network;

/// Images that are asked about.
const IMAGES: usize = 100;

/// The pixel of the largest value of a map brought to the image's size.
fn peak(map: &[f32], from: [usize; 2], size: usize) -> (f32, f32) {
    let large = upsample(map, from, [size, size]);
    let at = (0..large.len()).fold(0, |best, i| if large[i] > large[best] { i } else { best });
    ((at % size) as f32 + 0.5, (at / size) as f32 + 0.5)
}

/// Inside the oval in which the opacity has not yet faded to nothing.
fn inside(o: &Opacity, (x, y): (f32, f32)) -> bool {
    ((x - o.x) / o.rx).powi(2) + ((y - o.y) / o.ry).powi(2) <= 1.0
}

#[test]
fn the_maximum_of_the_map_lies_inside_the_opacity() {
    let Ok(run) = std::env::var("RADIOGRAD_PHANTOM_RUN") else {
        eprintln!("SKIPPED: RADIOGRAD_PHANTOM_RUN names no run; scripts/cam_phantom.sh trains one");
        return;
    };
    let (network, config) = Network::of_run(Path::new(&run)).unwrap();
    let (model, size) = (network.model(), config.size);
    let class = network.classes.iter().position(|c| c == "PNEUMONIA").expect("a phantom run");
    let store = network.store().unwrap();
    // Images of the test split: their patients were neither trained nor chosen on.
    let images: Vec<PhantomImage> =
        generate("test", 400, (size, size), config.seed).unwrap().into_iter().filter(|i| i.label == 1).collect();
    let mut executor = cpu::Executor::<f32>::fast();
    let mut hits: Vec<(String, [usize; 2])> = Vec::new();
    let (mut asked, mut covered) = (0, 0.0f64);
    for image in &images {
        let request = Request {
            model,
            store: &store,
            classes: &network.classes,
            mean: &network.mean,
            std: &network.std,
            name: &image.name,
            pixels: &image.pixels,
            label: None,
            target: None,
            bytes: DEFAULT_BYTES,
        };
        let (logits, found) = evidence(&mut executor, &request, class).unwrap();
        let p = probabilities(&logits, model.head());
        if p[class] <= 0.5 || asked == IMAGES {
            continue;
        }
        asked += 1;
        let any = |at| image.opacities.iter().any(|o| inside(o, at));
        let pixels = (0..size * size).filter(|p| any(((p % size) as f32 + 0.5, (p / size) as f32 + 0.5)));
        covered += pixels.count() as f64 / (size * size) as f64;
        for (k, e) in found.iter().enumerate() {
            let [_, h, w] = e.place.shape;
            let name = &model.steps()[e.place.step].name;
            if hits.len() <= k {
                hits.push((name.clone(), [0; 2]));
            }
            for (m, map) in [e.grad_cam(), e.hires_cam()].iter().enumerate() {
                hits[k].1[m] += usize::from(any(peak(map, [h, w], size)));
            }
        }
    }
    eprintln!(
        "{asked} images of {} with opacities, which cover {:.0} % of them",
        images.len(),
        100.0 * covered / asked as f64
    );
    for (name, [grad_cam, hires]) in &hits {
        eprintln!("{name}: Grad-CAM {grad_cam}, HiResCAM {hires}");
    }
    assert_eq!(asked, IMAGES, "too few of the images are classified correctly");
    let [grad_cam, hires] = hits.last().expect("a network with convolutions").1;
    assert!(grad_cam * 100 >= 80 * IMAGES, "Grad-CAM: {grad_cam} of {IMAGES}");
    assert!(hires * 100 >= 80 * IMAGES, "HiResCAM: {hires} of {IMAGES}");
}
