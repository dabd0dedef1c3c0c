import pytest

from posekernels.pose import skeleton as sk


def test_h36m_17_is_the_reduction_of_32():
    got = sk.H36M_32.reduced("x", sk.H36M_17_OF_32, attach={11: 8, 14: 8})
    assert got.parents == sk.H36M_17.parents
    assert (got.left, got.right) == (sk.H36M_17.left, sk.H36M_17.right)
    assert sk.H36M_32.reduced("x", sk.H36M_17_OF_32).parents[11] == 7  # before the published re-attachment


@pytest.mark.parametrize("layout", sk.SKELETONS.values(), ids=lambda s: s.name)
def test_layouts_are_sound(layout):
    assert layout.parents.count(-1) == 1
    for joint in range(layout.num_joints):  # detectors' layouts do not list parents first: follow them to the root
        for _ in range(layout.num_joints):
            joint = joint if joint == layout.root else layout.parents[joint]
        assert joint == layout.root
    for l, r in zip(layout.left, layout.right):
        assert layout.joints[l].replace("left", "right") == layout.joints[r]
        assert layout.mirrored[layout.parents[l]] == layout.parents[r]
    assert [layout.mirrored[j] for j in layout.mirrored] == list(range(layout.num_joints))


def test_cmu_joints_stand_for_h36m_joints():
    for h, c in enumerate(sk.H36M_17_OF_CMU_38):
        sides = [s for s in ("left", "right") if s in sk.CMU_38.joints[c]]
        assert sides == [s for s in ("left", "right") if s in sk.H36M_17.joints[h]]


def test_misspelt_name_tells_the_nearest():
    assert sk.skeleton("h36m-17") is sk.H36M_17
    with pytest.raises(ValueError, match="did you mean 'h36m-17'"):
        sk.skeleton("h36m17")


@pytest.mark.parametrize("keep", [(0, 1, 1), (1, 2), (0, 32)])
def test_reduction_refuses(keep):
    with pytest.raises(ValueError, match="keep"):
        sk.H36M_32.reduced("x", keep)


def test_a_joint_may_stand_in_for_the_root():
    """The joints that forecasters see lack the hips; legs hang on the lowest joint of the spine."""
    names = sk.H36M_22.joints
    assert names[sk.H36M_22.root] == "spine1" and sk.H36M_22.num_joints == 22 and sk.CMU_25.num_joints == 25
    bones = {(names[p], names[j]) for p, j in sk.H36M_22.bones}
    assert {("spine1", "right_leg"), ("spine1", "neck"), ("right_leg", "right_foot"), ("spine1", "left_arm")} <= bones
    assert sk.CMU_25.joints[sk.CMU_25.root] == "spine"
