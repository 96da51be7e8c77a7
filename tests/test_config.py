r"""From YAML nodes to objects: names, types, missing values; and every configuration builds and takes a step."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from data.test_sources import image_folder, mnist_like
from tiny import DIGITS, TOY, compose, numbers, train

from scoregen import sde
from scoregen.config import build, conf_dir, typed
from scoregen.errors import UserError, absent, closest
from scoregen.losses import DenoisingScoreMatching

CONF = conf_dir()


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def test_nested_nodes_are_built_inside_out():
    node = {
        "_target_": "scoregen.losses.DenoisingScoreMatching",
        "noise_levels": {"_target_": "scoregen.losses.LogNormal", "std": 2},
    }
    loss = build(node)
    assert isinstance(loss, DenoisingScoreMatching)
    assert loss.noise_levels.std == 2.0 and isinstance(loss.noise_levels.std, float)


def test_partial_nodes_wait_for_their_other_arguments():
    make = build({"_target_": "scoregen.sde.VE", "_partial_": True, "sigma_min": 0.5})
    assert make(sigma_max=3.0).sigma_max == 3.0


def test_plain_data_are_passed_through():
    assert build({"a": [1, {"b": "c"}], "d": None}) == {"a": [1, {"b": "c"}], "d": None}


@pytest.mark.parametrize(
    "node, text",
    [
        ({"sigma_mn": 1},
        r"sde.sigma_mn: 'sigma_mn' is
       
        not
       
        an
       
       
       
       
       
        argument
       
       
       
       
       
       
        of
       
       
       
       
       
       
       
        scoregen.sde.EDM.
       
        Did
       
       
       
       
       
       
       
       
       
        you
       
       
       
       
       
       
       
       
       
       
        mean
   
    
     
      
       









 
  
   
    
     
      
       

















 
  
   
    
     
      
       



























 
  
   
    
     
      
       




































 
  
   
    
     
      
       















































 
  
   
    
     
      
       

























































 
  
   
    
     
      
       








































































 
  
   
    
     
      
       



















































































 
  
   
    
     
      
       


























































































 
  
   
    
     
      
       



































































































 
  
   
    
     
      
       
        'sigma_min'\?"), ({"sigma_min": "a"}, r"sde.sigma_min: must be a number, got 'a' \(a text\)"), ({"sigma_min": True}, r"must be a number, got True \(true or false\)"), ({"sigma_min": None}, "must be a number, got null"), ({"sigma_min": 100}, "sde: sigma_min must satisfy 0 < sigma_min < sigma_max, got sigma_min=100.0"), ({"sigma_min": "???"}, "sde.sigma_min: a value is required; give sde.sigma_min=..."), ({"chart": 5}, r"sde.chart: must be Chart or null, got 5 \(an integer\)"), ({"chart": {"_target_": "scoregen.sde.EDM"}}, "sde.chart: must be Chart or null, got .*EDM"), ({"_target_": "scoregen.sde.EDN"}, r"sde._target_: 'scoregen.sde' has no 'EDN'. Did you mean 'EDM'\?"), ({"_target_": "scoregn.sde.EDM"}, "sde._target_: 'scoregn.sde.EDM' cannot be found: No module named 'scoregn'"), ({"_target_": "EDM"}, "sde._target_: cannot import 'EDM'"), ({"_target_": "scoregen.data.Npz"}, "sde.path: a value is required by scoregen.data.Npz; give sde.path=..."),
  
   
  
   
  
   
  
   
  
   
  
   
  
   
  
   
 
  
   
 
  
   
    ],











 ) def























 test_a_slip_is_one_message_with_its_place(node,






 t te te te



 t t


 t te tex text te



















 t te tex text text) text):
  
   
  
   
  
   
  
   
  
   
  
   
  
   
    with
   
   
   
   
   
   
   
    pytest.raises(UserError, match=text):
       
        build({"_target_":
        "scoregen.sde.EDM", **node}, where="sde")


@pytest.mark.parametriz
@pytest.mark.parametrize @pytest.mark.parametrize(
    "value, hint, result",
    [
        (3, float, 3.0),
        (3, int | None, 3),
        (None, int | None, None),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, 2.5], tuple[float, float], (1.0, 2.5)),
        ((1,), list[int], [1]),
        ("a", int | str, "a"),
        ("auto", None, "auto"),
        (Path("a"), Path | str, Path("a")),
    ],
)
def test_values_take_the_type_of_their_annotation(value, hint,
result):
    assert typed(value, hint, "a") == result
    assert type(typed(value, hint, "a"))
  
   
  
   
  
   
  
   
    is
    type(result)


@pytest.mark.parametrize(
    "value, hint, text",
    [
        (1.5, int, r"a: must be an integer, got 1.5 \(a number\)"),
        (True, int, "must be an integer, got True"),
        (1, bool, "must be true or false, got 1"),
        (3, tuple[int, ...], "must be a list, got 3"),
        ([1, "b"], tuple[int, ...], r"a\[1\]: must be an integer, got 'b'"),
        ([1.0], tuple[float, float], "must be a list of 2, got .* of 1"),
        ("b", float | None, "must be a number or null, got 'b'"),
        (None, int, "must be an integer, got null"),
    ],
)
def test_values_of_another_type_are_refused(value, hint,
text):
    with pytest.raises(UserError,
    match=text):
        typed(value, hint, "a")


de
def test_the_nearest_name_is_offered_or_all(
test_the_nearest_name_is_offered_or_all
test_the_nearest_name_is_offere
test_the_nearest_name_is_offered test_the_nearest_name_is_offered
test_the_nearest_name_is_offered_ test_the_nearest_name_is_offered_ test_the_nearest_name_is_offered_
test_the_nearest_name_is_offered_o test_the_nearest_name_is_offered_o test_the_nearest_name_is_offered_o test_the_nearest_name_is_offered_
test_the_nearest_name_is_offered_o test_the_nearest_name_is_offered_or test_the_nearest_name_is_offered_or test_the_nearest_name_is_offered_or test_the_nearest_name_is_offered_o test_the_nearest_name_is_offere
test_the_nearest_name_is_offered test_the_nearest_name_is_offered_ test_the_nearest_name_is_offered_o test_the_nearest_name_is_offered_or test_the_nearest_name_is_offered_or_ test_the_nearest_name_is_offered_or_ test_the_nearest_name_is_offered_or_ test_the_nearest_name_is_offered_or test_the_nearest_name_is_offered test_the_nearest_name_is_
test_the_nearest_name_is_o test_the_nearest_name_is_of test_the_nearest_name_is_off test_the_nearest_name_is_offe test_the_nearest_name_is_offer test_the_nearest_name_is_offere test_the_nearest_name_is_offered test_the_nearest_name_is_offered_ test_the_nearest_name_is_offered_o test_the_nearest_name_is_offered_or test_the_nearest_name_is_offered_or_ test_the_nearest_name_is_offered_or_a test_the_nearest_name_is_offered_or_a test_the_nearest_name_is_offered_or_a test_the_nearest_name_is_offered_or_ test_the_nearest_name_is_offered_ test_the_nearest_name_is_of test_the_neares
test_the_nearest test_the_nearest_ test_the_nearest_n test_the_nearest_na test_the_nearest_nam test_the_nearest_name test_the_nearest_name_ test_the_nearest_name_i test_the_nearest_name_is test_the_nearest_name_is_ test_the_nearest_name_is_o test_the_nearest_name_is_of test_the_nearest_name_is_off test_the_nearest_name_is_offe test_the_nearest_name_is_offer test_the_nearest_name_is_offere test_the_nearest_name_is_offered test_the_nearest_name_is_offered_ test_the_nearest_name_is_offered_o test_the_nearest_name_is_offered_or test_the_nearest_name_is_offered_or_ test_the_nearest_name_is_offered_or_a test_the_nearest_name_is_offered_or_al test_the_nearest_name_is_offered_or_ test_the_nearest_name_is_offered_ test_the_nearest_name_is_of test_the_neares
































































 t te tes test test_ test_t test_th test_the test_the_ test_the_n test_the_ne test_the_nea test_the_near test_the_neare test_the_neares test_the_nearest test_the_nearest_ test_the_nearest_n test_the_nearest_na test_the_nearest_nam test_the_nearest_name test_the_nearest_name_ test_the_nearest_name_i test_the_nearest_name_is test_the_nearest_name_is_ test_the_nearest_name_is_o test_the_nearest_name_is_of test_the_nearest_name_is_off test_the_nearest_name_is_offe test_the_nearest_name_is_offer test_the_nearest_name_is_offere test_the_nearest_name_is_offered test_the_nearest_name_is_offered_ test_the_nearest_name_is_offered_o test_the_nearest_name_is_offered_or test_the_nearest_name_is_offered_or_ test_the_nearest_name_is_offered_or_a test_the_nearest_name_is_offered_or_al test_the_nearest_name_is_offered_or_all test_the_nearest_name_is_offered_or_all( test_the_nearest_name_is_offered_or_all() test_the_nearest_name_is_offered_or_all():
   
   
   
    assert closest("stepss", ["steps", "seed"])
    ==
   
   
   
   
   
   
    "Did
   
   
   
   
   
   
   
   
    you mean
 
  
   
 
  
   
   
   
   
   
   
   
   
    'steps'?" assert closest("xyz", ["steps", "seed"]) == "Choices: seed, steps." assert closest("xyz", []) == ""









d d de d













 d de def test_an_absent_path_offers_its_nearest_neighbour_only(tmp_pat test_an_absent_path_offers_its_nearest_neighbour_only(tmp_ test_an_absent_path_offers_its_nearest_neighbour_onl test_an_absent_path_offers_its_nearest_nei
test_an_absent_path
test_an_absent_path_ test_an_absent_path_
test_an_absent_path_o









































































 t te tes test test_ test_a test_an test_an_ test_an_a test_an_ab test_an_abs test_an_abse test_an_absen test_an_absent test_an_absent_ test_an_absent_p test_an_absent_pa test_an_absent_pat test_an_absent_path test_an_absent_path_ test_an_absent_path_o test_an_absent_path_of test_an_absent_path_off test_an_absent_path_offe test_an_absent_path_offer test_an_absent_path_offers test_an_absent_path_offers_ test_an_absent_path_offers_i test_an_absent_path_offers_it test_an_absent_path_offers_its test_an_absent_path_offers_its_ test_an_absent_path_offers_its_n test_an_absent_path_offers_its_ne test_an_absent_path_offers_its_nea test_an_absent_path_offers_its_near test_an_absent_path_offers_its_neare test_an_absent_path_offers_its_neares test_an_absent_path_offers_its_nearest test_an_absent_path_offers_its_nearest_ test_an_absent_path_offers_its_nearest_n test_an_absent_path_offers_its_nearest_ne test_an_absent_path_offers_its_nearest_nei test_an_absent_path_offers_its_nearest_neig test_an_absent_path_offers_its_nearest_neigh test_an_absent_path_offers_its_nearest_neighb test_an_absent_path_offers_its_nearest_neighbo test_an_absent_path_offers_its_nearest_neighbou test_an_absent_path_offers_its_nearest_neighbour test_an_absent_path_offers_its_nearest_neighbour_ test_an_absent_path_offers_its_nearest_neighbour_o test_an_absent_path_offers_its_nearest_neighbour_on test_an_absent_path_offers_its_nearest_neighbour_onl test_an_absent_path_offers_its_nearest_neighbour_only test_an_absent_path_offers_its_nearest_neighbour_only( test_an_absent_path_offers_its_nearest_neighbour_only(t test_an_absent_path_offers_its_nearest_neighbour_only(tm test_an_absent_path_offers_its_nearest_neighbour_only(tmp test_an_absent_path_offers_its_nearest_neighbour_only(tmp_ test_an_absent_path_offers_its_nearest_neighbour_only(tmp_p test_an_absent_path_offers_its_nearest_neighbour_only(tmp_pa test_an_absent_path_offers_its_nearest_neighbour_only(tmp_pat test_an_absent_path_offers_its_nearest_neighbour_only(tmp_path test_an_absent_path_offers_its_nearest_neighbour_only(tmp test_an_absent_path_offers_its_nearest_neighbour_only(tm test_an_absent_path_offers_its_nearest_neighbour_only( test_an_absent_path_offers_its_nearest_neighbour_o test_an_absent_path_offers_its_nearest_nei test_an_absent_path_offers



















































 t te tes test test_ test_a test_an test_an_ test_an_a test_an_ab test_an_abs test_an_abse test_an_absen test_an_absent test_an_absent_ test_an_absent_p test_an_absent_pa test_an_absent_pat test_an_absent_path test_an_absent_path_ test_an_absent_path_o test_an_absent_path_of test_an_absent_path_off test_an_absent_path_offe test_an_absent_path_offer test_an_absent_path_offers test_an_absent_path_offers_ test_an_absent_path_offers_i test_an_absent_path_offers_it test_an_absent_path_offers_its test_an_absent_path_offers_its_ test_an_absent_path_offers_its_n test_an_absent_path_offers_its_ne test_an_absent_path_offers_its_nea test_an_absent_path_offers_its_near test_an_absent_path_offers_its_neare test_an_absent_path_offers_its_neares test_an_absent_path_offers_its_nearest test_an_absent_path_offers_its_nearest_ test_an_absent_path_offers_its_nearest_n test_an_absent_path_offers_its_nearest_ne test_an_absent_path_offers_its_nearest_nei test_an_absent_path_offers_its_nearest_neig test_an_absent_path_offers_its_nearest_neigh test_an_absent_path_offers_its_nearest_neighb test_an_absent_path_offers_its_nearest_neighbo test_an_absent_path_offers_its_nearest_neighbou test_an_absent_path_offers_its_nearest_neighbour test_an_absent_path_offers_its_nearest_neighbour_ test_an_absent_path_offers_its_nearest_neighbour_o test_an_absent_path_offers_its_nearest_neighbour_on test_an_absent_path_offers_its_nearest_neighbour_onl test_an_absent_path_offers_its_nearest_neighbour_only test_an_absent_path_offers_its_nearest_neighbour_only( test_an_absent_path_offers_its_nearest_neighbour_only(t test_an_absent_path_offers_its_nearest_neighbour_only(tm test_an_absent_path_offers_its_nearest_neighbour_only(tmp test_an_absent_path_offers_its_nearest_neighbour_only(tmp_ test_an_absent_path_offers_its_nearest_neighbour_only(tmp_p test_an_absent_path_offers_its_nearest_neighbour_only( test_an_absent_path_offers_its_nearest_neighbo test_an_absent_path_offers_its













































































































































































































 t te tes test test_ test_a test_an test_an_ test_an_a test_an_ab test_an_abs test_an_abse test_an_absen test_an_absent test_an_absent_ test_an_absent_p test_an_absent_pa test_an_absent_pat test_an_absent_path test_an_absent_path_ test_an_absent_path_o test_an_absent_path_of test_an_absent_path_off test_an_absent_path_offe test_an_absent_path_offer test_an_absent_path_offers test_an_absent_path_offers_ test_an_absent_path_offers_i test_an_absent_path_offers_it test_an_absent_path_offers_its test_an_absent_path_offers_its_ test_an_absent_path_offers_its_n test_an_absent_path_offers_its_ne test_an_absent_path_offers_its_nea test_an_absent_path_offers_its_near test_an_absent_path_offers_its_neare test_an_absent_path_offers_its_neares test_an_absent_path_offers_its_nearest test_an_absent_path_offers_its_nearest_ test_an_absent_path_offers_its_nearest_n test_an_absent_path_offers_its_nearest_ne test_an_absent_path_offers_its_nearest_nei test_an_absent_path_offers_its_nearest_neig test_an_absent_path_offers_its_nearest_neigh test_an_absent_path_offers_its_nearest_neighb test_an_absent_path_offers_its_nearest_neighbo test_an_absent_path_offers_its_nearest_neighbou test_an_absent_path_offers_its_nearest_neighbour test_an_absent_path_offers_its_nearest_neighbour_ test_an_absent_path_offers_its_nearest_neighbour_o test_an_absent_path_offers_its_nearest_neighbour_on test_an_absent_path_offers_its_nearest_neighbour_onl test_an_absent_path_offers_its_nearest_neighbour_only test_an_absent_path_offers_its_nearest_neighbour_only( test_an_absent_path_offers_its_nearest_neighbour_only(t test_an_absent_path_offers_its_nearest_neighbour_only(tm test_an_absent_path_offers_its_nearest_neighbour_only(tmp test_an_absent_path_offers_its_nearest_neighbour_only(tmp_ test_an_absent_path_offers_its_nearest_neighbour_only(tmp_p test_an_absent_path_offers_its_nearest_neighbour_only(tmp_pa test_an_absent_path_offers_its_nearest_neighbour_only(tmp_pat test_an_absent_path_offers_its_nearest_neighbour_only(tmp_path test_an_absent_path_offers_its_nearest_neighbour_only(tmp_path) test_an_absent_path_offers_its_nearest_neighbour_only(tmp_path):
    (tmp_path
    / "images").mkdir()
    assert absent(tmp_path /
    "image") ==
   
   
   
    f"'{tmp_path}/image'
   
   
   
   
    does
   
   
   
   
   
    not
   
    exist.
 
  
   
   
  
   
  
   
    Did you mean '{tmp_path}/images'?" assert absent(tmp_path / "xyz") == f"'{tmp_path}/xyz' does not exist."
    assert absent("/nowhere/at/all") ==
   
   
   
   
    "'/nowhere/at/all'
   
   
   
   
   
   
    does
   
   
   
   
   
   
   
   
    not
   
   
   
   
   
   
   
   
   
   
    exist."






d de def test_configuration_is_found_beside_a_checkout_and_inside_an_installed_package(tmp_path, monkeypatch):
    assert (conf_dir() / "train.yaml").is_file()
   
    monkeypatch.setattr("scoregen.config.__file__", str(tmp_path /
    "scoregen" / "config.py")) assert conf_dir() ==
    tmp_path / " "" "
    """
    ""
    ""
    ""
    ""
    ""
    ""
    ""
    ""
    ""
    ""
    ""
    ""
    ""
    ""
    ""scoregen"
    / "conf" (tmp_path / "conf").mkdir()  # a foreign folder of this name beside an installed
   
    package assert conf_dir() == tmp_path
    / "scoregen" / "conf"




d de def small_sampler(name: str) -> list[str
list
list[ list[s
list[s list[s
list[st list[st list[st list[st
list[str list[str list[str list[str list[str list[str
list[str] list[str]:
    node = yaml.safe_load((CONF / "sampler"
    / f"{name}.yaml").read_text()) return ["sampler.steps=2"] if "
    f""
    f""
    f""
    f""
    f""steps"
    in node and node["steps"] else
    []


ST
STE STEP = ["trainer.steps=1", "preview.every=1", "preview.n=2",
"sampler.steps=2"]


@pytest.mark.parametrize("name", options("sde"))


d
de def test_every_process_takes_a_step_and_samples(tmp_path, name):
    folder = train(tmp_path, *DIGITS, *STEP, f"sde={name}")
    assert
    (folder / "samples.png").is_file() and (folder / "trajectory.png").is_file()


@pytest.mark.parametrize("name", options("sde"))





d d de de d

 d de def test_processes_take_the_chart_of_the_data(nam test_processes_take_the_chart_of_the_data(n
 test_processes_take_the_chart_of_the_da test_processes_take_the_chart_o test_processes_
test_processes_t test_processes_ta test_processes_tak test_processes_take test_processes_take_ test_processes_take_t
test_processes_take_th test_processes_take_the test_processes_take_the_ test_processes_take_the_c
test_processes_take_the_ch test_processes_take_the_cha test_processes_take_the_char test_processes_take_the_chart
test_processes_take_the_chart_ test_processes_take_the_chart_o test_processes_take_the_chart_of test_processes_take_the_chart_of_ test_processes_take_the_chart_of_t test_processes_take_the_chart_of_th test_processes_take_the_chart_of_the test_processes_take_the_chart_of_the_ test_processes_take_the_chart_of_the_d test_processes_take_the_chart_of_the_da test_processes_take_the_chart_of_the_dat test_processes_take_the_chart_of_the_data test_processes_take_the_chart_of_the_data( test_processes_take_the_chart_of_the_data(n test_processes_take_the_chart_of_the_data(na test_processes_take_the_chart_of_the_data(nam test_processes_take_the_chart_of_the_data(name test_processes_take_the_chart_of_the_data(nam test_processes_take_the_chart_of_the_data(n test_processes_take_the_chart_of_the_da test_processes_take_the_chart_of test_processes_take





 t te tes test test_ test_p test_pr test_pro test_proc test_proce test_proces test_process test_processe test_processes
 test_processes_ test_processes_t test_processes_ta test_processes_tak test_processes_take test_processes_take_
 test_processes_take_t test_processes_take_th test_processes_take_the test_processes_take_the_
 test_processes_take_the_c test_processes_take_the_ch test_processes_take_the_cha test_processes_take_the_char test_processes_take_the_chart test_processes_take_the_chart_ test_processes_take_the_chart_o test_processes_take_the_chart_of test_processes_take_the_chart_of_ test_processes_take_the_chart_of_t test_processes_take_the_chart_of_th test_processes_take_the_chart_of_the test_processes_take_the_chart_of_the_ test_processes_take_the_chart_of_the_d test_processes_take_the_chart_of_the_da test_processes_take_the_chart_of_the_dat test_processes_take_the_chart_of_the_data test_processes_take_the_chart_of_the_data( test_processes_take_the_chart_of_the_data(n test_processes_take_the_chart_of_the_data(na test_processes_take_the_chart_of_the_data(nam test_processes_take_the_chart_of_the_data(name test_processes_take_the_chart_of_the_data(name) test_processes_take_the_chart_of_the_data(name):
    process = build(compose("data=digits",
    f"sde={name}")["sde"])
   
    assert isinstance(process,
    sde.SDE) assert process.to_chart(process.from_chart(process.to_chart(np_half()))).item() ==
    pytest.approx(
        process.to_chart(np_half()).item()
    )
    if not isinstance(process, sde.GeometricBrownianMotion | sde.GeometricOU |
   
   
   
   
   
   
    sde.Multiplicative):
        assert process.to_chart(np_half()).item() == 0.0  # x = 1/2 is y = 0






d
d de def np_half( np_half( np_half()
np_half( np_half()
np_half() np_half() np_half(
np_half() np_half():
   
   
   
   
   
   
    import
   
   
   
   
   
    torch

   
    return torch.full((1, 1),
    0.5, dtype=torch.float64)


@pytest.mark.filterwarnings("ignore:AmbientLangevin")  # two steps are too few for it, as it says
@pytest.mark.parametrize("name", options("sampler"))


d de def test_every_sampler_samples(tmp_path,
name):
    process = {"ambient_langevin": "gbm", "dale_langevin": "gbm"}.get(name, "edm")
   
    few =
    small_sampler(name) folder = train(tmp_path, *DIGITS, *STEP[:3], f"sampler={name}", f"sde={process}", *few)
    assert (folder
    / "report.html").is_file()


@pytest.mark.parametrize("name", options("model"))


d de def test_every_model_takes_a_step(tmp_path,
name):
    overrides = {"mlp": TOY, "unet_patch": [*DIGITS, "model.network.channels=[8]"]}.get(name, DIGITS)
    if name ==
   
   
   
   
   
    "classifier":
        overrides = ["data=digits", "loss=cross_entropy", "conditional=true", *TOY[4:]]
   
    folder = train(tmp_path, *overrides, f"model={name}", "trainer.steps=1")
    assert numbers(folder)[0]["loss"]
    > 0


@pytest.mark.parametrize("name", options("loss"))


d de def test_every_loss_takes_a_step(tmp_path,
name):
    overrides = TOY
    if name in ("cross_entropy",
   
   
   
   
   
    "consistency_regularization"):
        overrides = ["data=digits", "model=classifier", *TOY[4:]]
    if name ==
   
   
   
   
   
    "consistency_distillation":
        teacher = train(tmp_path / "teacher", *TOY, "trainer.steps=1")
       
        overrides =
        [*TOY, f"loss.teacher.path={teacher}"]
    folder =
    train(tmp_path / "run", *overrides, f"loss={name}", "trainer.steps=1")
    assert len(numbers(folder))
    == 1


@pytest.mark.parametrize("name", options("data"))


d de def test_every_data_set_takes_a_step(tmp_path,
name):
    root = tmp_path / "data"
    made =
    {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
    overrides = [*DIGITS[1:], f"data={name}"] if
    name in
   
   
   
   
   
    made:
        mnist_like(root, made[name])
       
        overrides +=
        [f"data.root={root}", "model.network.patch_size=4"]
   
   
   
    elif name == "folder":
        overrides
       
        += [f"data.path={image_folder(root)}", "data.size=4"]
   
   
    elif name in
    ("npz", "cifar10"):
        images = np.zeros((9, 32, 32, 3), np.uint8)
       
        labels
        = np.arange(9) file = root
        / "cifar10_subset.npz"
       
       
        root.mkdir() np.savez(file,
        train_images=images, train_labels=labels, test_images=images, test_labels=labels) overrides +=
        [f"data.root={root}" if name == "cifar10" else f"data.path={file}", "model.network.patch_size=4"]
   
   
   
    elif name == "toy2d":
        overrides = TOY
    folder
    = train(tmp_path / "run", *overrides, *STEP)
    assert (folder
    / "report.html").is_file()


@pytest.mark.parametrize("name", options("logger"))



d d de def
test_every_logger_is_built(name):
    assert build(compose(f"logger={name}")["logger"]).open


@pytest.mark.parametrize("name", options("experiment"))



d d de def
test_every_experiment_composes(name):
    config = compose(f"+experiment={name}", "data.root=x") if "mnist" in name else compose(f"+experiment={name}")
    for
    group in ("sde", "loss", "sampler", "trainer"):
        build(config[group], where=group)









