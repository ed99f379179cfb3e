//! Buffers: variables, uploads, and reading back.

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
    gpu.guarded(label, || {
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

/// Reads back, and waits for it.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn bytes_of(gpu: &Gpu, buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Vec<u8>, ExecError> {
    pollster::block_on(fetch_bytes(gpu, buffer, offset, bytes))
}

/// A page cannot wait: its device goes on only when it has returned.
#[cfg(target_arch = "wasm32")]
pub(super) fn bytes_of(_: &Gpu, _: &wgpu::Buffer, _: u64, _: u64) -> Result<Vec<u8>, ExecError> {
    Err(ExecError::Device("a page in a browser cannot wait for its device; use fetch in the place of read".to_owned()))
}

/// Begins to read a tensor back.
pub(super) fn fetch(gpu: &Gpu, buffer: &wgpu::Buffer, offset: u64, spec: &Spec) -> Pending {
    let (bytes, spec) = (fetch_bytes(gpu, buffer, offset, spec.bytes() as u64), spec.clone());
    Box::pin(async move { Ok(tensor_of(&spec, &bytes.await?)) })
}

/// Begins to read back: what is submitted later does not change the bytes.
fn fetch_bytes(
    gpu: &Gpu,
    buffer: &wgpu::Buffer,
    offset: u64,
    bytes: u64,
) -> impl Future<Output = Result<Vec<u8>, ExecError>> + use<> {
    let begun = (bytes > 0).then(|| begin(gpu, buffer, offset, bytes));
    let gpu = gpu.clone();
    async move {
        let Some(begun) = begun else { return Ok(Vec::new()) };
        let (staging, mapped) = begun?;
        #[cfg(not(target_arch = "wasm32"))]
        gpu.device
            .poll(wgpu::PollType::Wait { submission_index: None, timeout: Some(std::time::Duration::from_secs(300)) })
            .map_err(|e| ExecError::Device(format!("reading back did not end: {e}")))?;
        match mapped.await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(ExecError::Device(format!("reading back failed: {e}"))),
            Err(_) => return Err(ExecError::Device("reading back was given up by the driver".to_owned())),
        }
        gpu.check()?;
        let view =
            staging.slice(..).get_mapped_range().map_err(|e| ExecError::Device(format!("reading back failed: {e}")))?;
        let read = view[..bytes as usize].to_vec();
        drop(view);
        // In a browser it would stay until the collector comes.
        staging.destroy();
        Ok(read)
    }
}

/// Tells when a buffer is mapped.
type Mapped = futures_channel::oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>;

/// Submits the copy into a buffer that the host can read, and asks for that to be mapped.
fn begin(gpu: &Gpu, buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<(wgpu::Buffer, Mapped), ExecError> {
    let staging = gpu.guarded("reading back", || {
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

    pub(super) fn get(&self, var: VarId) -> (&wgpu::Buffer, &Spec) {
        (&self.buffers[var.index()], &self.specs[var.index()])
    }

    pub(super) fn write(&self, gpu: &Gpu, var: VarId, value: &Tensor) -> Result<(), ExecError> {
        let expected = &self.specs[var.index()];
        if *expected != value.spec() {
            let node = self.names[var.index()].clone();
            return Err(ExecError::Input { node, expected: expected.clone(), got: value.spec() });
        }
        gpu.queue.write_buffer(&self.buffers[var.index()], 0, &words_of(value));
        gpu.check()
    }

    /// Bytes of each variable.
    pub(super) fn sizes(&self) -> Vec<u64> {
        self.specs.iter().map(|s| s.bytes() as u64).collect()
    }
}
