//! Which host CPU each vCPU's thread runs on.

use std::fmt::Write as _;
use std::str::FromStr;

use rustix::thread::{CpuSet, sched_getaffinity};
use serde::{Deserialize, Serialize};

/// Host CPUs in order: the n-th vCPU runs on the n-th of them, which may be named more than once. Empty: anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuList(Vec<usize>);

/// Why vCPUs cannot run there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AffinityError {
    /// A host CPU that is not there, or not for this process.
    #[error("--cpu-affinity: this process may not run on host CPU {cpu}; it may on {allowed}")]
    NotAllowed {
        /// Which.
        cpu: usize,
        /// Those that it may.
        allowed: CpuList,
    },
    /// More or fewer host CPUs than vCPUs.
    #[error(
        "--cpu-affinity names {given} host CPUs for {vcpus} vCPUs: name one for each, as in 0,2-4"
    )]
    Count {
        /// How many are named.
        given: usize,
        /// How many vCPUs there are.
        vcpus: u8,
    },
}

impl CpuList {
    /// Whether vCPUs run anywhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where a vCPU runs.
    pub(crate) fn of_vcpu(&self, index: u8) -> Option<usize> {
        self.0.get(usize::from(index)).copied()
    }

    /// Whether each of `vcpus` vCPUs has its host CPU, and this process may use it.
    ///
    /// # Errors
    /// [`AffinityError`].
    pub fn check(&self, vcpus: u8) -> Result<(), AffinityError> {
        if self.is_empty() {
            return Ok(());
        }
        if self.0.len() != usize::from(vcpus) {
            let given = self.0.len();
            return Err(AffinityError::Count { given, vcpus });
        }
        // A host that does not say lets the pinning itself say it.
        let Ok(set) = sched_getaffinity(None) else {
            return Ok(());
        };
        let is_allowed = |cpu: usize| cpu < CpuSet::MAX_CPU && set.is_set(cpu);
        match self.0.iter().find(|cpu| !is_allowed(**cpu)) {
            None => Ok(()),
            Some(&cpu) => Err(AffinityError::NotAllowed {
                cpu,
                allowed: Self(
                    (0..CpuSet::MAX_CPU)
                        .filter(|cpu| is_allowed(*cpu))
                        .collect(),
                ),
            }),
        }
    }
}

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no list of CPUs: write it as 0,2-4");
        let number = |text: &str| match text.parse::<usize>() {
            Ok(cpu) if cpu < CpuSet::MAX_CPU => Ok(cpu),
            _ => Err(wrong()),
        };
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(wrong());
            }
            cpus.extend(first..=last);
        }
        Ok(Self(cpus))
    }
}

impl TryFrom<String> for CpuList {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        text.parse()
    }
}

impl From<CpuList> for String {
    fn from(list: CpuList) -> Self {
        list.to_string()
    }
}

impl std::fmt::Display for CpuList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        let mut rest = &self.0[..];
        while let Some(&first) = rest.first() {
            let run = (0..)
                .zip(rest)
                .take_while(|(n, cpu)| **cpu == first + n)
                .count();
            let comma = if text.is_empty() { "" } else { "," };
            match run {
                1 => write!(text, "{comma}{first}")?,
                _ => write!(text, "{comma}{first}-{}", first + run - 1)?,
            }
            rest = &rest[run..];
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_numbers_and_ranges_in_order() {
        let list: CpuList = "3,0-2,7".parse().unwrap();
        assert_eq!(list.0, [3, 0, 1, 2, 7]);
        assert_eq!(list.to_string(), "3,0-2,7");
        assert_eq!((list.of_vcpu(0), list.of_vcpu(9)), (Some(3), None));
        for wrong in ["", "a", "1-", "3-1", "0,,1", "-1", "0-99999999999"] {
            assert!(wrong.parse::<CpuList>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_vcpu_needs_a_cpu_that_the_process_may_use() {
        let allowed = sched_getaffinity(None).unwrap();
        let cpu = (0..CpuSet::MAX_CPU)
            .find(|cpu| allowed.is_set(*cpu))
            .unwrap();
        let list = CpuList(vec![cpu]);
        assert_eq!(list.check(1), Ok(()));
        let count = AffinityError::Count { given: 1, vcpus: 2 };
        assert_eq!(list.check(2), Err(count));
        let missing = (0..CpuSet::MAX_CPU)
            .find(|cpu| !allowed.is_set(*cpu))
            .unwrap();
        let said = CpuList(vec![missing]).check(1).unwrap_err().to_string();
        assert!(
            said.contains(&format!("host CPU {missing}; it may on")),
            "{said}"
        );
        assert_eq!(CpuList::default().check(4), Ok(()));
    }
}
