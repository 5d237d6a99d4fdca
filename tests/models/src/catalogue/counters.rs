//! Designs that keep the count in a word of the page or of its file.

use super::{
    DRAWN, Form, GLISSE, HUBBARD, KARA, OURS, Of, WILLIAMS, common_and, common_scenes, words,
};
use crate::actors::writeback::Policy;
use crate::designs::field::{self, Field};
use crate::designs::flag::{self, Flag};
use crate::designs::flag_mapping::FlagMapping;
use crate::designs::lru::{self, Lru};
use crate::designs::mapcount::{Audit, Count, Mapcount};
use crate::designs::mapping::{self, Mapping};
use crate::invariant::Invariant;
use crate::scene;

pub(super) fn field() -> Vec<Form> {
    let of = Of("field");
    vec![
        of.broken(
            words(
                "reference-first",
                DRAWN,
                "the unpin drops the last reference before its count: the page is freed with a pin",
            ),
            Invariant::CountsAtRest,
            scene::truncation(),
            || Field::new(field::Form::ReferenceFirst),
        ),
        of.repaired(
            words(
                "count-first",
                HUBBARD,
                "a counter of its own, lowered before the reference",
            ),
            common_scenes(),
            || Field::new(field::Form::CountFirst),
        ),
    ]
}

pub(super) fn flag() -> Vec<Form> {
    let of = Of("flag");
    vec![
        of.broken(
            words(
                "bare",
                DRAWN,
                "a flag is no count: who clears it at zero clears that of a pin that came in between",
            ),
            Invariant::NoFalseNegative,
            scene::two_pins(Policy::Bounce),
            || Flag::new(flag::Form::Bare),
        ),
        of.repaired(
            words("locked", DRAWN, "flag and count change under one bit lock"),
            common_scenes(),
            || Flag::new(flag::Form::Locked),
        ),
    ]
}

pub(super) fn mapping() -> Vec<Form> {
    let of = Of("mapping");
    vec![
        of.broken(
            words(
                "bare",
                WILLIAMS,
                "how may GUP-fast look at page->mapping? truncation takes the way to the counter away: it leaks",
            ),
            Invariant::CountsAtRest,
            scene::truncation(),
            || Mapping::new(mapping::Form::Bare),
        ),
        of.repaired(
            words(
                "shares",
                DRAWN,
                "the page that leaves its file takes its share along, under i_pages",
            ),
            common_and(vec![scene::cloning(Policy::Bounce)]),
            || Mapping::new(mapping::Form::Shares),
        ),
    ]
}

pub(super) fn flag_mapping() -> Vec<Form> {
    let of = Of("flag+mapping");
    vec![
        of.broken(
            words(
                "bare",
                DRAWN,
                "the file's counter as it was posted: a truncation between pin and unpin leaks it, whatever the page's count says",
            ),
            Invariant::CountsAtRest,
            scene::truncation(),
            || FlagMapping::new(mapping::Form::Bare),
        ),
        of.repaired(
            words(
                "both",
                OURS,
                "flag and count for the page, shares for the file, each under its own lock",
            ),
            common_and(vec![scene::cloning(Policy::Bounce)]),
            || FlagMapping::new(mapping::Form::Shares),
        ),
    ]
}

pub(super) fn mapcount() -> Vec<Form> {
    let of = Of("mapcount");
    vec![
        of.broken(
            words(
                "unaudited",
                KARA,
                "a pin raises refcount and mapcount: who compares them moves the page under the device",
            ),
            Invariant::BytesOnMedia,
            scene::migration(),
            || Mapcount::new(Count::Sequence, Audit::Missing),
        ),
        of.broken(
            words(
                "torn-count",
                GLISSE,
                "page tables, then mapcount: a child that ends in between hides a pin",
            ),
            Invariant::NoFalseNegative,
            scene::fork_under_fsync(Policy::Bounce),
            || Mapcount::new(Count::Torn, Audit::Done),
        ),
        of.broken(
            words(
                "read-twice",
                DRAWN,
                "the mapcount is read again, but a fork and an exit cancel out",
            ),
            Invariant::NoFalseNegative,
            scene::fork_under_fsync(Policy::Bounce),
            || Mapcount::new(Count::ReadTwice, Audit::Done),
        ),
        of.repaired(
            words(
                "sequence",
                DRAWN,
                "asked again while the reverse map moves; migration counts page tables",
            ),
            common_scenes(),
            || Mapcount::new(Count::Sequence, Audit::Done),
        ),
    ]
}

pub(super) fn lru() -> Vec<Form> {
    let of = Of("lru");
    vec![
        of.broken(
            words(
                "july-2018",
                KARA,
                "put_page ends the pin, also the put of a reference that is older: unpinned too soon",
            ),
            Invariant::NoFalseNegative,
            scene::plain_reference(Policy::Bounce),
            || Lru::new(lru::Form::July),
        ),
        of.broken(
            words(
                "november-2018",
                KARA,
                "the count crosses zero twice before the lock is taken",
            ),
            Invariant::OwnAssertion,
            scene::two_pins(Policy::Bounce),
            || Lru::new(lru::Form::November),
        ),
        of.repaired(
            words("dec-and-lock", KARA, "the last count is lowered under the lock"),
            common_scenes(),
            || Lru::new(lru::Form::Repaired),
        ),
    ]
}
