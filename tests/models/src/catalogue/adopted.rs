//! Where upstream came from and went: no count, the biased refcount, and a put for each kind of reference.

use super::{DRAWN, Form, GLISSE, KARA, Of, common_and, common_scenes, words};
use crate::actors::writeback::{Asked, Policy};
use crate::designs::bias::{self, Bias};
use crate::designs::none::{self, Nothing};
use crate::designs::typed::{self, Typed};
use crate::invariant::Invariant;
use crate::scene;
use crate::state::Mark;

pub(super) fn none() -> Vec<Form> {
    let scene = |policy| scene::write_back_of_a_held_page(policy, Asked::AfterMkclean);
    let of = Of("none");
    vec![
        of.broken(
            words(
                "as-in-4.18",
                KARA,
                "write-back cleans the page under the device; the unpin dirties a page without buffers",
            ),
            Invariant::DirtyMeetsBlocks,
            scene(Policy::None),
            || Nothing::new(none::Form::Plain),
        ),
        of.broken(
            words(
                "asked",
                DRAWN,
                "a policy is of no use if nobody can tell that the page is pinned",
            ),
            Invariant::NoFalseNegative,
            scene(Policy::Bounce).reaching(&[Mark::AskedWhileHeld]),
            || Nothing::new(none::Form::Plain),
        ),
        of.repaired(
            words(
                "mmu-notifier",
                GLISSE,
                "no pin, but a device with page tables that mkclean empties",
            ),
            vec![scene(Policy::None), scene::truncation()],
            || Nothing::new(none::Form::Notifier),
        ),
    ]
}

pub(super) fn bias() -> Vec<Form> {
    let of = Of("bias");
    let mut forms = broken_bias();
    forms.extend([
        of.repaired(
            words(
                "upstream",
                KARA,
                "refcount >= 1024, asked after mkclean, with a policy",
            ),
            common_scenes(),
            || Bias::new(bias::Form::Upstream),
        ),
        of.repaired(
            words(
                "file-counter",
                DRAWN,
                "the same, and a counter in the file for clone and freeze",
            ),
            common_and(vec![scene::cloning(Policy::Bounce)]),
            || Bias::new(bias::Form::WithFileCounter),
        ),
    ]);
    forms
}

fn broken_bias() -> Vec<Form> {
    let after = Asked::AfterMkclean;
    let upstream = || Bias::new(bias::Form::Upstream);
    let of = Of("bias");
    vec![
        of.broken(
            words(
                "subtract",
                GLISSE,
                "refcount - mapcount > 1024, Jan Kara's first form: two counters are read at two times",
            ),
            Invariant::NoFalseNegative,
            scene::fork_under_fsync(Policy::Bounce),
            || Bias::new(bias::Form::Subtract),
        ),
        of.broken(
            words("no-policy", KARA, "6.12 as it is: write-back does not ask"),
            Invariant::StableBytes,
            scene::write_back_of_a_held_page(Policy::None, after),
            upstream,
        ),
        of.broken(
            words(
                "asked-before-mkclean",
                DRAWN,
                "GUP-fast comes between the question and the page tables",
            ),
            Invariant::StableBytes,
            scene::write_back_of_a_held_page(Policy::Bounce, Asked::BeforeMkclean)
                .reaching(&[Mark::WrittenWhileHeld]),
            upstream,
        ),
        of.broken(
            words(
                "bounce-and-clean",
                DRAWN,
                "the copy is written and the page called clean: what the device writes later is lost",
            ),
            Invariant::BytesOnMedia,
            scene::write_back_and_a_clean_unpin(Policy::BounceAndClean),
            upstream,
        ),
        of.broken(
            words(
                "clone",
                DRAWN,
                "a count in the page does not say whether the file has pins: the clone changes (S03, S04)",
            ),
            Invariant::ImageUnchanged,
            scene::cloning(Policy::Bounce),
            upstream,
        ),
    ]
}

pub(super) fn typed() -> Vec<Form> {
    let of = Of("typed");
    let believed = || Typed::new(typed::Form::Believed);
    let reported = &[Mark::WrongPutReported];
    vec![
        of.broken(
            words(
                "wrong-put",
                KARA,
                "a plain reference is given back as a pin, and another's pin is gone",
            ),
            Invariant::NoFalseNegative,
            scene::wrong_put(Policy::Bounce),
            believed,
        ),
        of.broken(
            words(
                "double-put",
                KARA,
                "a pin is given back twice, and the page is freed under another's device",
            ),
            Invariant::FreedIsNotWritten,
            scene::double_put(),
            believed,
        ),
        of.repaired(
            words(
                "checked",
                DRAWN,
                "an entry for each reference; a put that does not fit is named and refused",
            ),
            common_and(vec![
                scene::wrong_put(Policy::Bounce).reaching(reported),
                scene::double_put().reaching(reported),
            ]),
            || Typed::new(typed::Form::Checked),
        ),
    ]
}
