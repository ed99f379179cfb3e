//! A split in memory.

/// Images of one size with their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// `N*C*H*W` bytes, image after image, channel after channel, row after row.
    pub pixels: Vec<u8>,
    /// Class of each image.
    pub labels: Vec<u32>,
    /// Path relative to the data folder, or split and number (`train/17`).
    pub names: Vec<String>,
    /// Patient of each image; an image of unknown patient has its own.
    pub patients: Vec<String>,
}

impl Images {
    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True where there is no image.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes of one image: C*H*W.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// The `C*H*W` bytes of image `i`; `None` past the end.
    #[must_use]
    pub fn image(&self, i: usize) -> Option<&[u8]> {
        let n = self.stride();
        self.pixels.get(i.checked_mul(n)?..(i + 1).checked_mul(n)?)
    }

    /// Images of each class.
    #[must_use]
    pub fn class_counts(&self, classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        for &label in &self.labels {
            if let Some(n) = counts.get_mut(label as usize) {
                *n += 1;
            }
        }
        counts
    }

    /// Mean and standard deviation (population) of each channel over all pixels of all images, of x/255.
    ///
    /// Exact: computed from the histogram of the bytes. Without images: 0 and 1.
    #[must_use]
    pub fn mean_std(&self) -> (Vec<f32>, Vec<f32>) {
        let plane = self.height * self.width;
        let mut histograms = vec![[0_u64; 256]; self.channels];
        if plane > 0 {
            for (p, pixels) in self.pixels.chunks_exact(plane).enumerate() {
                let histogram = &mut histograms[p % self.channels];
                pixels.iter().for_each(|&v| histogram[v as usize] += 1);
            }
        }
        histograms.iter().map(moments).unzip()
    }

    /// Moves the flagged images out, keeping the order on both sides.
    pub(crate) fn take(&mut self, flags: &[bool]) -> Self {
        let stride = self.stride();
        let count = flags.iter().filter(|f| **f).count();
        let mut out = Vec::with_capacity(count * stride);
        let mut kept = 0;
        for (i, &flag) in flags.iter().enumerate() {
            let range = i * stride..(i + 1) * stride;
            if flag {
                out.extend_from_slice(&self.pixels[range]);
            } else {
                self.pixels.copy_within(range, kept * stride);
                kept += 1;
            }
        }
        self.pixels.truncate(kept * stride);
        Self {
            pixels: out,
            labels: extract(&mut self.labels, flags),
            names: extract(&mut self.names, flags),
            patients: extract(&mut self.patients, flags),
            ..*self
        }
    }

    pub(crate) fn hash_into(&self, hash: &mut blake3::Hasher) {
        for n in [self.len(), self.channels, self.height, self.width] {
            hash.update(&(n as u64).to_le_bytes());
        }
        for (label, name) in self.labels.iter().zip(&self.names) {
            hash.update(&label.to_le_bytes()).update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        }
        hash.update(&self.pixels);
    }
}

fn extract<T>(items: &mut Vec<T>, flags: &[bool]) -> Vec<T> {
    let mut at = flags.iter();
    items.extract_if(.., |_| at.next().copied().unwrap_or(false)).collect()
}

/// Mean and standard deviation of x/255 from the counts of x.
fn moments(histogram: &[u64; 256]) -> (f32, f32) {
    let n: u64 = histogram.iter().sum();
    if n == 0 {
        return (0.0, 1.0);
    }
    // 255^2 * n fits in 64 bits for every n that fits in memory, so the sums are exact.
    let sum: u64 = (0_u64..).zip(histogram).map(|(v, k)| v * k).sum();
    let mean = sum as f64 / n as f64;
    let squares: f64 = (0_u32..).zip(histogram).map(|(v, &k)| (f64::from(v) - mean).powi(2) * k as f64).sum();
    ((mean / 255.0) as f32, ((squares / n as f64).sqrt() / 255.0) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Images {
        Images {
            channels: 3,
            height: 1,
            width: 2,
            pixels: vec![0, 255, 10, 10, 0, 0, 0, 255, 30, 30, 51, 51],
            labels: vec![0, 1],
            names: vec!["a".into(), "b".into()],
            patients: vec!["p".into(), "q".into()],
        }
    }

    #[test]
    fn mean_and_deviation_are_per_channel() {
        let (mean, std) = sample().mean_std();
        let want = [(0.5, 0.5), (20.0 / 255.0, 10.0 / 255.0), (0.1, 0.1)];
        for (c, (m, s)) in want.into_iter().enumerate() {
            assert!((mean[c] - m).abs() < 1e-7 && (std[c] - s).abs() < 1e-7, "{c}: {} {}", mean[c], std[c]);
        }
    }

    #[test]
    fn taking_moves_rows_and_keeps_order() {
        let mut a = sample();
        let whole = a.clone();
        let b = a.take(&[true, false]);
        assert_eq!(b.image(0), whole.image(0));
        assert_eq!(a.image(0), whole.image(1));
        assert_eq!((a.names[0].as_str(), b.patients[0].as_str(), a.len(), b.len()), ("b", "p", 1, 1));
        assert_eq!(a.image(1), None);
        assert_eq!(whole.class_counts(3), [1, 1, 0]);
    }
}
