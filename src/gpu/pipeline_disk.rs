//! Compiled pipelines on disk, where the driver hands them out (Vulkan): a later run of the program then need not compile them
//! again. One file an adapter: a line that says what it is, the driver's data, and the BLAKE3 hash of both. A file that is
//! damaged, cut short, or of another adapter or driver is as good as absent, and a folder that cannot be written costs time,
//! never the run. Results do not depend on it.

use std::path::{Path, PathBuf};

use super::device::Gpu;
use crate::fsio;

/// Data beyond this is given up, so that kernels that nobody runs any more do not pile up.
const MOST: usize = 64 << 20;
/// What a file begins with, before the adapter's key.
const MAGIC: &[u8] = b"radiograd pipelines 1\n";
const HASH: usize = 32;

/// The pipelines of an adapter: those of earlier runs, and those that this one adds.
#[derive(Debug)]
pub(super) struct PipelineDisk {
    cache: wgpu::PipelineCache,
    path: PathBuf,
    key: [u8; HASH],
    /// What the file holds now.
    saved: Option<[u8; HASH]>,
}

impl PipelineDisk {
    /// The pipelines of this adapter in `folder`; `None` where the driver keeps its own counsel.
    pub(super) fn open(gpu: &Gpu, folder: &Path) -> Option<Self> {
        if !gpu.device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let name = wgpu::util::pipeline_cache_key(&gpu.device.adapter_info())?;
        let key = *blake3::hash(format!("{name}\n{}\n{}", gpu.summary.name, gpu.summary.driver).as_bytes()).as_bytes();
        let path = folder.join(format!("{}.rgpipelines", &blake3::Hash::from_bytes(key).to_hex()[..16]));
        let data = fsio::read(&path).ok().and_then(|bytes| unpack(&bytes, &key).map(<[u8]>::to_vec));
        let saved = data.as_ref().map(|d| *blake3::hash(d).as_bytes());
        let descriptor =
            wgpu::PipelineCacheDescriptor { label: Some("radiograd"), data: data.as_deref(), fallback: true };
        let cache = gpu.guarded("compiled pipelines", || {
            // SAFETY: `data` must be what `PipelineCache::get_data` gave on such an adapter. `unpack` lets through only
            // whole files that `pack` made of exactly that (`save` is its only caller): the BLAKE3 hash covers every byte, and
            // the key is that of this adapter, driver and driver version. wgpu itself tests its header (adapter, driver's
            // cache UUID, length) before the driver sees the data, which tests its own header again. Who can write into the
            // user's cache folder with a matching hash can as well replace the program.
            #[allow(unsafe_code)]
            unsafe {
                gpu.device.create_pipeline_cache(&descriptor)
            }
        });
        Some(Self { cache: cache.ok()?, path, key, saved })
    }

    /// For a pipeline's descriptor.
    pub(super) fn cache(&self) -> &wgpu::PipelineCache {
        &self.cache
    }

    /// Writes the file where something is new; what fails is tried again by the next run.
    pub(super) fn save(&mut self) {
        let Some(data) = self.cache.get_data().filter(|d| d.len() <= MOST) else { return };
        let hash = *blake3::hash(&data).as_bytes();
        let folder = self.path.parent().unwrap_or(Path::new("."));
        if self.saved != Some(hash)
            && fsio::create_dir(folder).and_then(|()| fsio::write_atomic(&self.path, &pack(&data, &self.key))).is_ok()
        {
            self.saved = Some(hash);
        }
    }
}

/// A file's bytes.
fn pack(data: &[u8], key: &[u8; HASH]) -> Vec<u8> {
    let mut bytes = [MAGIC, key.as_slice(), data].concat();
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

/// The data of a whole file of this key.
fn unpack<'a>(bytes: &'a [u8], key: &[u8; HASH]) -> Option<&'a [u8]> {
    let (body, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH)?)?;
    if blake3::hash(body).as_bytes() != hash {
        return None;
    }
    body.strip_prefix(MAGIC)?.strip_prefix(key.as_slice()).filter(|data| data.len() <= MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_files_of_the_adapter_are_used() {
        let (key, other) = ([7; HASH], [8; HASH]);
        let bytes = pack(b"what the driver gave", &key);
        assert_eq!(unpack(&bytes, &key), Some(b"what the driver gave".as_slice()));
        assert_eq!(unpack(&bytes, &other), None);
        for end in 0..bytes.len() {
            assert_eq!(unpack(&bytes[..end], &key), None, "cut at {end}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(unpack(&damaged, &key), None, "damaged at {at}");
        }
        assert_eq!(unpack(&pack(&vec![0; MOST + 1], &key), &key), None);
    }
}
