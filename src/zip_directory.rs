//! How many entries a zip archive claims to have. The reader makes room for all of them before it reads the first, so whoever opens a
//! file of somebody else's asks here before.

use std::io::{self, Read, Seek, SeekFrom};

/// The end record may have a comment behind it of up to 64 KiB, and the records of a large archive before it.
const TAIL: u64 = (1 << 16) + 22 + 20 + 56;

/// The most entries that any end record in the archive's tail claims; `None` where the records of a large archive are apart. The reader
/// stands at the beginning afterwards.
pub(crate) fn claimed<R: Read + Seek>(reader: &mut R, length: u64) -> io::Result<Option<u64>> {
    let mut tail = Vec::new();
    reader.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    reader.by_ref().take(TAIL).read_to_end(&mut tail)?;
    reader.seek(SeekFrom::Start(0))?;
    let mut most = 0;
    for (at, record) in tail.windows(22).enumerate().filter(|(_, w)| w.starts_with(b"PK\x05\x06")) {
        let number =
            |bytes: Option<&[u8]>| bytes.map_or(0, |b| b.iter().rev().fold(0, |n, &b| (n << 8) | u64::from(b)));
        // Entries on this disk and in all; an archive on several disks is refused later.
        let (here, all) = (number(record.get(8..10)), number(record.get(10..12)));
        let before = |n: usize| at.checked_sub(n).and_then(|from| tail.get(from..at)).unwrap_or_default();
        let large = before(76);
        let entries = match (before(20).starts_with(b"PK\x06\x07"), large.starts_with(b"PK\x06\x06")) {
            (true, true) => number(large.get(32..40)),
            (true, false) => return Ok(None),
            (false, _) => all,
        };
        if here == all {
            most = most.max(entries);
        }
    }
    Ok(Some(most))
}
