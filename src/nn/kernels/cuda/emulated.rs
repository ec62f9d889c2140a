//! A backend for tests without a GPU: `kernels.cu` compiled for the CPU with `on_cpu.h`.

use std::{
    ffi::{CString, c_char, c_int, c_uint, c_void},
    path::Path,
    process::Command,
    sync::{Mutex, OnceLock},
};

use candle_core::{DType, Device, Tensor};
use libloading::Library;

use super::{
    super::super::error::Result,
    backend::{Backend, Graph},
    tensors::pointer,
};

type Launch = unsafe extern "C" fn(*const c_char, *const c_uint, c_uint, *const c_void, usize) -> c_int;

/// An emulated GPU. It runs one block after the other.
#[derive(Default)]
pub struct Emulated {
    /// The calls since a capture began. None outside a capture.
    captured: Mutex<Option<Vec<Call>>>,
}

/// A captured call.
enum Call {
    Launch {
        kernel: String,
        blocks: [u32; 3],
        threads: u32,
        /// A copy of the argument struct, and its size in bytes.
        args: (Vec<u64>, usize),
    },
    Multiply {
        out: Tensor,
        x: Tensor,
        weight: Tensor,
    },
}

/// The compiled kernels. The mutex allows one launch at a time, because shared memory is static in the library.
fn library() -> &'static Mutex<Library> {
    static LIBRARY: OnceLock<Mutex<Library>> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/nn/kernels/cuda");
        let out = tempfile::tempdir().unwrap();
        let object = out.path().join("kernels.so");
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        let options = [
            "-std=c++20",
            "-O2",
            "-Wall",
            "-Wno-unknown-pragmas",
            "-Werror",
            "-shared",
            "-fPIC",
            "-U_FORTIFY_SOURCE",
        ];
        let done = Command::new(&compiler)
            .args(options)
            .arg("-include")
            .arg(folder.join("on_cpu.h"))
            .args(["-x", "c++"])
            .arg(folder.join("kernels.cu"))
            .arg("-o")
            .arg(&object)
            .output()
            .unwrap_or_else(|e| panic!("{compiler} cannot be run: {e}"));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        // SAFETY: the library's constructors only fill a table.
        Mutex::new(unsafe { Library::new(&object) }.unwrap())
    })
}

impl Backend for Emulated {
    unsafe fn launch(
        &self,
        kernel: &str,
        blocks: [u32; 3],
        threads: u32,
        (args, size): (*const c_void, usize),
    ) -> Result<()> {
        if let Some(captured) = &mut *self.captured.lock().unwrap() {
            let mut copy = vec![0u64; size.div_ceil(8)];
            // SAFETY: both have this size.
            unsafe { args.cast::<u8>().copy_to_nonoverlapping(copy.as_mut_ptr().cast(), size) };
            captured.push(Call::Launch { kernel: kernel.into(), blocks, threads, args: (copy, size) });
            return Ok(());
        }
        let name = CString::new(kernel).unwrap();
        let library = library().lock().unwrap();
        // SAFETY: `on_cpu.h` declares it with this type; the caller guarantees the arguments.
        let error = unsafe {
            let launch = library.get::<Launch>(b"launch").unwrap();
            launch(name.as_ptr(), blocks.as_ptr(), threads, args, size)
        };
        assert_eq!(error, 0, "{kernel}: see `launch` of on_cpu.h");
        Ok(())
    }

    fn multiply(&self, out: &Tensor, x: &Tensor, weight: &Tensor) -> Result<()> {
        if let Some(captured) = &mut *self.captured.lock().unwrap() {
            captured.push(Call::Multiply { out: out.clone(), x: x.clone(), weight: weight.clone() });
            return Ok(());
        }
        let y = x.matmul(&weight.t()?)?.to_dtype(out.dtype())?;
        assert_eq!(y.dims(), out.dims());
        let bytes = y.elem_count() * y.dtype().size_in_bytes();
        // SAFETY: both are contiguous and have this size.
        unsafe { std::ptr::copy_nonoverlapping(pointer(&y)? as *const u8, pointer(out)? as *mut u8, bytes) };
        Ok(())
    }

    fn linear(&self, _: &Tensor, _: &Tensor, _: &Tensor, _: bool) -> Result<Option<Tensor>> {
        Ok(None)
    }

    fn upload(&self, bytes: &[u8]) -> Result<Tensor> {
        Tensor::from_slice(bytes, bytes.len(), &Device::Cpu)
    }

    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Box<dyn Graph>>> {
        *self.captured.lock().unwrap() = Some(Vec::new());
        let done = work();
        let calls = self.captured.lock().unwrap().take().unwrap();
        done?;
        Ok(Some(Box::new(calls)))
    }
}

impl Graph for Vec<Call> {
    unsafe fn replay(&self) -> Result<()> {
        let emulated = Emulated::default();
        for call in self {
            match call {
                Call::Launch { kernel, blocks, threads, args: (args, size) } => {
                    // SAFETY: the caller guarantees it.
                    unsafe { emulated.launch(kernel, *blocks, *threads, (args.as_ptr().cast(), *size)) }?;
                }
                Call::Multiply { out, x, weight } => emulated.multiply(out, x, weight)?,
            }
        }
        Ok(())
    }
}

/// The elements of a tensor, converted to f32.
pub fn elements(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}
