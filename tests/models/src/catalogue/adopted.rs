//! Where upstream came from and went: no count, the biased refcount, and a put for each kind of reference.

use super::{DRAWN, Form, GLISSE, KARA, Words, broken, common_and, common_scenes, repaired};
use crate::actors::writeback::{Asked, Policy};
use crate::designs::bias::{self, Bias};
use crate::designs::none::{self, Nothing};
use crate::designs::typed::{self, Typed};
use crate::invariant::Invariant;
use crate::scene;
use crate::state::Mark;

pub(super) fn none() -> Vec<Form> {
    let scene = |policy| scene::write_back_of_a_held_page(policy, Asked::AfterMkclean);
    let words = |form, by, says| Words {
        design: "none",
        form,
        by,
        says,
    };
    vec![
        broken(
            words(
                "as-in-4.18",
                KARA,
                "write-back cleans the page under the device; the unpin dirties a page without buffers",
            ),
            Invariant::DirtyMeetsBlocks,
            scene(Policy::None),
            || Nothing::new(none::Form::Plain),
        ),
        broken(
            words(
                "asked",
                DRAWN,
                "a policy is of no use if nobody can tell that the page is pinned",
            ),
            Invariant::NoFalseNegative,
            scene(Policy::Bounce).reaching(&[Mark::AskedWhileHeld]),
            || Nothing::new(none::Form::Plain),
        ),
        repaired(
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

fn bias_words(form: &'static str, by: &'static str, says: &'static str) -> Words {
    Words {
        design: "bias",
        form,
        by,
        says,
    }
}

pub(super) fn bias() -> Vec<Form> {
    let words = bias_words;
    let mut forms = broken_bias();
    forms.extend([
        repaired(
            words(
                "upstream",
                KARA,
                "refcount >= 1024, asked after mkclean, with a policy",
            ),
            common_scenes(),
            || Bias::new(bias::Form::Upstream),
        ),
        repaired(
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
    let words = bias_words;
    vec![
        broken(
            words(
                "subtract",
                GLISSE,
                "refcount - mapcount > 1024, Jan Kara's first form: two counters are read at two times",
            ),
            Invariant::NoFalseNegative,
            scene::fork_under_fsync(Policy::Bounce),
            || Bias::new(bias::Form::Subtract),
        ),
        broken(
            words("no-policy", KARA, "6.12 as it is: write-back does not ask"),
            Invariant::StableBytes,
            scene::write_back_of_a_held_page(Policy::None, after),
            upstream,
        ),
        broken(
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
        broken(
            words(
                "bounce-and-clean",
                DRAWN,
                "the copy is written and the page called clean: what the device writes later is lost",
            ),
            Invariant::BytesOnMedia,
            scene::write_back_and_a_clean_unpin(Policy::BounceAndClean),
            upstream,
        ),
        broken(
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
    let words = |form, by, says| Words {
        design: "typed",
        form,
        by,
        says,
    };
    let believed = || Typed::new(typed::Form::Believed);
    let reported = &[Mark::WrongPutReported];
    vec![
        broken(
            words(
                "wrong-put",
                KARA,
                "a plain reference is given back as a pin, and another's pin is gone",
            ),
            Invariant::NoFalseNegative,
            scene::wrong_put(Policy::Bounce),
            believed,
        ),
        broken(
            words(
                "double-put",
                KARA,
                "a pin is given back twice, and the page is freed under another's device",
            ),
            Invariant::FreedIsNotWritten,
            scene::double_put(),
            believed,
        ),
        repaired(
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
