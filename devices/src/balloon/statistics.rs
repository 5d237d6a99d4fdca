//! The guest's memory statistics (virtio 1.2, 5.5.6.3): tags and values, as the driver packs them.

use std::collections::BTreeMap;

/// Length of one statistic: a tag of 16 bits and a value of 64.
const LEN: usize = 10;
/// Most bytes of one list: far more than there are tags.
pub(super) const MAX_LIST: u64 = 64 * LEN as u64;
/// Names by tag; the later ones are not in 1.2 yet.
const NAMES: [&str; 16] = [
    "swap-in",
    "swap-out",
    "major-faults",
    "minor-faults",
    "free-memory",
    "total-memory",
    "available-memory",
    "disk-caches",
    "hugetlb-allocations",
    "hugetlb-failures",
    "oom-kills",
    "allocation-stalls",
    "async-scans",
    "direct-scans",
    "async-reclaims",
    "direct-reclaims",
];

/// Takes a list apart. Where a tag comes twice, the last counts.
///
/// # Errors
/// The list is cut off.
pub(super) fn decode(list: &[u8]) -> Result<BTreeMap<String, u64>, &'static str> {
    let (statistics, rest) = list.as_chunks::<LEN>();
    if !rest.is_empty() {
        return Err("a list of statistics that is cut off");
    }
    let decoded = statistics.iter().map(|statistic| {
        let [low, high, value @ ..] = *statistic;
        (
            name(u16::from_le_bytes([low, high])),
            u64::from_le_bytes(value),
        )
    });
    Ok(decoded.collect())
}

fn name(tag: u16) -> String {
    let known = NAMES.get(usize::from(tag));
    known.map_or_else(|| format!("tag-{tag}"), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(statistics: &[(u16, u64)]) -> Vec<u8> {
        let bytes =
            |(tag, value): &(u16, u64)| [&tag.to_le_bytes()[..], &value.to_le_bytes()[..]].concat();
        statistics.iter().flat_map(bytes).collect()
    }

    #[test]
    fn known_tags_have_names_and_unknown_ones_are_kept() {
        let decoded = decode(&list(&[(4, 1 << 20), (0, 7), (99, u64::MAX)])).unwrap();
        let expected = [
            ("free-memory", 1 << 20),
            ("swap-in", 7),
            ("tag-99", u64::MAX),
        ];
        assert_eq!(
            decoded
                .iter()
                .map(|(name, value)| (name.as_str(), *value))
                .collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn a_list_that_is_cut_off_is_refused_and_an_empty_one_is_not() {
        assert!(decode(&[0; 9]).is_err());
        assert!(decode(&[]).unwrap().is_empty());
    }
}
