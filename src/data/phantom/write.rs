//! The phantom set as an image folder.

use std::fs;
use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use rayon::prelude::*;

use super::super::error::DataError;
use super::{CLASSES, PhantomSizes, draw, plan};
use crate::fsio::{self, FsError};

const README: &str = "These images are synthetic: a program drew them. They show no patient, and no figure measured on \
them says anything about patients.\nMade by `radiograd data phantom`.\n";

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Written {
    /// Files of train, val and test.
    pub images: [usize; 3],
}

/// Writes the set as `OUT/{train,val,test}/{NORMAL,PNEUMONIA}/*.png` (grey, 8 bits) with a README that says what it is.
///
/// All is written beside `out` first and then moved, so that `out` is whole or as it was. The `val` folder holds
/// patients of its own; a program that reads the folder takes it for the official one and holds out others of train.
///
/// # Errors
/// [`DataError::NotEmpty`] where `out` has content; [`DataError::Options`] for a size out of range or a split with
/// fewer than two images; [`DataError::Fs`] where it cannot be written.
pub fn write_folder(out: &Path, sizes: PhantomSizes, size: (usize, usize), seed: u32) -> Result<Written, DataError> {
    super::super::check_size(size, 1)?;
    let images = [sizes.train, sizes.val, sizes.test];
    if images.iter().any(|&n| !(2..=1_000_000).contains(&n)) {
        return Err(DataError::Options(format!(
            "phantom images {images:?} (train, val, test): each split takes 2 to 1000000"
        )));
    }
    match fs::read_dir(out) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(DataError::NotEmpty { path: out.to_owned() });
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(FsError::new("write", out, e).into()),
    }
    let parent = match out.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    fsio::create_dir(parent)?;
    let fail = |e| DataError::Fs(FsError::new("write", out, e));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".radiograd-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o777));
    }
    let draft = builder.tempdir_in(parent).map_err(fail)?;
    fsio::write_synced(&draft.path().join("README.txt"), README.as_bytes())?;
    for (split, n) in ["train", "val", "test"].into_iter().zip(images) {
        for class in CLASSES {
            fsio::create_dir(&draft.path().join(split).join(class))?;
        }
        plan(split, n, seed).into_par_iter().try_for_each(|shot| {
            let image = draw(seed, shot, size);
            let class = CLASSES[shot.label as usize & 1];
            let path = draft.path().join(split).join(class).join(format!("{}.png", image.name));
            let mut bytes = Vec::new();
            PngEncoder::new(&mut bytes)
                .write_image(&image.pixels, size.1 as u32, size.0 as u32, ExtendedColorType::L8)
                .map_err(|e| fail(std::io::Error::other(e)))?;
            Ok::<_, DataError>(fsio::write_synced(&path, &bytes)?)
        })?;
    }
    // An empty folder of that name is replaced; one that filled up meanwhile makes the rename fail.
    #[cfg(windows)]
    let _ = fs::remove_dir(out);
    fsio::rename_dir(draft.path(), out)?;
    // Moved away: there is nothing left to remove.
    let _ = draft.keep();
    Ok(Written { images })
}
