//! Buffers: variables, uploads, and reading back.

use std::time::Duration;

use super::device::Gpu;
use crate::exec::{ExecError, Pending};
use crate::shape::{DType, Spec};
use crate::store::{ParamStore, VarId};
use crate::tensor::{Data, Tensor};

/// One buffer for each persistent variable.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    buffers: Vec<wgpu::Buffer>,
    specs: Vec<Spec>,
    names: Vec<String>,
}

/// A zeroed storage buffer.
pub(super) fn storage(gpu: &Gpu, label: &str, bytes: u64) -> Result<wgpu::Buffer, ExecError> {
    let limit = gpu.summary.max_buffer_bytes;
    if bytes > limit {
        return Err(ExecError::TooLarge { tensor: label.to_owned(), bytes, limit });
    }
    let what = || format!("{label} ({} MiB)", bytes.div_ceil(1 << 20));
    gpu.guarded(&what(), || {
        gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes.max(4).next_multiple_of(256),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    })
}

/// The words of a tensor as they lie on the device; bytes are padded to whole words.
pub(super) fn words_of(value: &Tensor) -> Vec<u8> {
    match value.data() {
        Data::F32(v) => bytemuck::cast_slice(v).to_vec(),
        Data::F64(v) => v.iter().flat_map(|&x| (x as f32).to_ne_bytes()).collect(),
        Data::U32(v) => bytemuck::cast_slice(v).to_vec(),
        Data::U8(v) => {
            let mut v = v.clone();
            v.resize(v.len().next_multiple_of(4), 0);
            v
        }
    }
}

/// The tensor that the device's words hold.
pub(super) fn tensor_of(spec: &Spec, bytes: &[u8]) -> Tensor {
    let data = match spec.dtype {
        DType::Float => Data::F32(bytemuck::pod_collect_to_vec(bytes)),
        DType::U32 => Data::U32(bytemuck::pod_collect_to_vec(bytes)),
        DType::U8 => Data::U8(bytes[..spec.numel()].to_vec()),
    };
    Tensor::new(spec.shape.clone(), data).expect("as many bytes as the shape has")
}

/// What is read back: where it lies, what messages call it, and how long is waited for it.
#[derive(Clone, Debug)]
pub(super) struct ReadBack<'a> {
    pub(super) buffer: &'a wgpu::Buffer,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) name: String,
    pub(super) limit: Duration,
}

/// Reads back, and waits for it.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn bytes_of(gpu: &Gpu, wanted: ReadBack<'_>) -> Result<Vec<u8>, ExecError> {
    pollster::block_on(fetch_bytes(gpu, wanted))
}

/// A page cannot wait: its device goes on only when it has returned.
#[cfg(target_arch = "wasm32")]
pub(super) fn bytes_of(_: &Gpu, _: ReadBack<'_>) -> Result<Vec<u8>, ExecError> {
    Err(ExecError::Device("a page in a browser cannot wait for its device; use fetch in the place of read".to_owned()))
}

/// Begins to read a tensor back.
pub(super) fn fetch(gpu: &Gpu, wanted: ReadBack<'_>, spec: &Spec) -> Pending {
    let (bytes, spec) = (fetch_bytes(gpu, wanted), spec.clone());
    Box::pin(async move { Ok(tensor_of(&spec, &bytes.await?)) })
}

/// Begins to read back: what is submitted later does not change the bytes.
fn fetch_bytes(gpu: &Gpu, wanted: ReadBack<'_>) -> impl Future<Output = Result<Vec<u8>, ExecError>> + use<> {
    let ReadBack { buffer, offset, bytes, name, limit } = wanted;
    let what = format!("reading back {name}");
    let begun = (bytes > 0).then(|| begin(gpu, buffer, offset, bytes, &what));
    let gpu = gpu.clone();
    async move {
        let Some(begun) = begun else { return Ok(Vec::new()) };
        let (staging, mapped) = begun?;
        arrived(&gpu, mapped, &what, limit).await?;
        gpu.check(|| what.clone())?;
        let failed = |reason: &str| ExecError::Device(format!("{what} failed: {reason}"));
        let view = staging.slice(..).get_mapped_range().map_err(|e| failed(&e.to_string()))?;
        let mut read = Vec::new();
        read.try_reserve_exact(bytes as usize)
            .map_err(|_| ExecError::OutOfMemory(format!("the host has no room for {what}")))?;
        read.extend_from_slice(&view[..bytes as usize]);
        drop(view);
        // In a browser it would stay until the collector comes.
        staging.destroy();
        Ok(read)
    }
}

/// Waits until a buffer is mapped. When all that was submitted has ended, it is, or never will be.
#[cfg(not(target_arch = "wasm32"))]
async fn arrived(gpu: &Gpu, mut mapped: Mapped, what: &str, limit: Duration) -> Result<(), ExecError> {
    gpu.wait_for(None, limit, || what.to_owned())?;
    match mapped.try_recv() {
        Ok(Some(Ok(()))) => Ok(()),
        Ok(Some(Err(e))) => Err(ExecError::Device(format!("{what} failed: {e}"))),
        Ok(None) | Err(_) => Err(ExecError::Device(format!("{what} was given up by the driver"))),
    }
}

/// As natively, but the page's turn ends here until the device has done its part.
#[cfg(target_arch = "wasm32")]
async fn arrived(_: &Gpu, mapped: Mapped, what: &str, _: Duration) -> Result<(), ExecError> {
    match mapped.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(ExecError::Device(format!("{what} failed: {e}"))),
        Err(_) => Err(ExecError::Device(format!("{what} was given up by the driver"))),
    }
}

/// Tells when a buffer is mapped.
type Mapped = futures_channel::oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>;

/// Submits the copy into a buffer that the host can read, and asks for that to be mapped.
fn begin(
    gpu: &Gpu,
    buffer: &wgpu::Buffer,
    offset: u64,
    bytes: u64,
    what: &str,
) -> Result<(wgpu::Buffer, Mapped), ExecError> {
    let staging = gpu.guarded(what, || {
        gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read back"),
            size: bytes.next_multiple_of(4),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    })?;
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, bytes.next_multiple_of(4));
    gpu.queue.submit([encoder.finish()]);
    let (sender, receiver) = futures_channel::oneshot::channel();
    staging.slice(..).map_async(wgpu::MapMode::Read, move |result| {
        // The receiver is gone only if the value is not wanted any more.
        let _ = sender.send(result);
    });
    Ok((staging, receiver))
}

// Dropping frees nothing in a browser, and its collector does not see how large buffers are.
#[cfg(target_arch = "wasm32")]
impl Drop for Buffers {
    fn drop(&mut self) {
        self.buffers.iter().for_each(wgpu::Buffer::destroy);
    }
}

impl Buffers {
    pub(super) fn variables(gpu: &Gpu, store: &ParamStore) -> Result<Self, ExecError> {
        let mut all = Self::default();
        for (i, var) in store.vars().iter().enumerate() {
            all.buffers.push(storage(gpu, &var.name, var.spec.bytes() as u64)?);
            all.specs.push(var.spec.clone());
            all.names.push(var.name.clone());
            if let Some(value) = store.initial(VarId(i as u32)) {
                all.write(gpu, VarId(i as u32), &value)?;
            }
        }
        Ok(all)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.buffers.len()
    }

    fn held(&self, var: VarId) -> Result<(), ExecError> {
        let missing = || ExecError::NotLoaded(format!("variable {}", var.index()));
        if var.index() < self.len() { Ok(()) } else { Err(missing()) }
    }

    /// A whole variable, to be read within `limit`.
    pub(super) fn wanted(&self, var: VarId, limit: Duration) -> Result<(ReadBack<'_>, &Spec), ExecError> {
        self.held(var)?;
        let ((buffer, spec), name) = (self.get(var), self.names[var.index()].clone());
        Ok((ReadBack { buffer, offset: 0, bytes: spec.bytes() as u64, name, limit }, spec))
    }

    pub(super) fn get(&self, var: VarId) -> (&wgpu::Buffer, &Spec) {
        (&self.buffers[var.index()], &self.specs[var.index()])
    }

    pub(super) fn write(&self, gpu: &Gpu, var: VarId, value: &Tensor) -> Result<(), ExecError> {
        self.held(var)?;
        let expected = &self.specs[var.index()];
        if *expected != value.spec() {
            let node = self.names[var.index()].clone();
            return Err(ExecError::Input { node, expected: expected.clone(), got: value.spec() });
        }
        gpu.queue.write_buffer(&self.buffers[var.index()], 0, &words_of(value));
        gpu.check(|| self.names[var.index()].clone())
    }

    /// Bytes of each variable.
    pub(super) fn sizes(&self) -> Vec<u64> {
        self.specs.iter().map(|s| s.bytes() as u64).collect()
    }
}
