"""Names of flow runs, such as `jumpy-puppy`: two words that people can say to each other.

Own lists, because the library for it takes 25-40 ms to import, a tenth of what a hello flow may take. A store
tells runs apart by their ids; of two runs with one name, the name means the newer.
"""

from __future__ import annotations

import random

_QUALITIES = """
    able agile alert ample amber amused apt arctic ardent astute awake azure balmy bashful blithe blue bold bouncy
    brainy brave breezy brief bright brisk bronze bubbly busy calm candid careful carefree cheerful chilly chipper
    civil clever cobalt comic cool coral cosmic cosy courtly crafty crimson crisp curious dapper daring dashing
    deft dizzy dreamy droll dusky eager early earnest easy elated elegant fabled fair famous fancy fearless feisty
    festive fiery fleet fluffy fond frank free fresh frisky frosty fuzzy gallant gentle giddy gifted glad gleeful
    golden good graceful grand grateful green groovy hale handy happy hardy hasty hearty helpful honest hopeful
    humble icy ideal indigo intrepid ivory jaunty jazzy jolly jovial joyful jumpy keen kind lanky lavish lazy
    limber lively loyal lucid lucky lunar lush mellow merry mighty mild mindful misty modest mossy nifty nimble
    noble olive opal open patient peaceful peppy perky placid playful plucky polite posh precise prompt proud
    prudent quaint quick quiet quirky radiant rapid ready regal robust rosy royal ruby rustic sandy sassy savvy
    serene sharp shiny silent silky silver sincere sleek sleepy sly smart smiling smooth snappy snowy snug solar
    solid spirited spry stable stately steady stellar sturdy subtle sunny supple swift tactful tame tender tidy
    timely tiny tranquil trim trusty upbeat urbane valiant velvet vivid warm wavy whimsical wild willing windy
    wise witty wooden young zany zealous zesty zippy
"""

_ANIMALS = """
    aardvark albatross alpaca ant antelope ape armadillo avocet axolotl badger barracuda basilisk bat beagle bear
    beaver bee beetle bison boar bobcat bonobo bumblebee bunny buzzard camel canary capybara caracal caribou carp
    cat caterpillar chameleon cheetah chickadee chinchilla chipmunk cicada clam cobra cod collie condor coot coral
    cormorant cougar cow coyote crab crane cricket crocodile crow cuckoo curlew deer dingo dolphin donkey dormouse
    dove dragonfly duck eagle earwig echidna eel egret eland elephant elk emu ermine falcon ferret finch firefly
    flamingo fox frog gannet gazelle gecko gerbil gibbon giraffe gnu goat goose gopher gorilla grebe grouse gull
    guppy hamster hare harrier hawk hedgehog heron herring hippo hoopoe hornet horse hound husky hyena ibex ibis
    iguana impala jackal jackdaw jaguar jay jellyfish kangaroo kestrel kingfisher kitten kiwi koala kudu ladybird
    lamb lapwing lark lemming lemur leopard limpet linnet lion lizard llama lobster lynx macaw magpie mallard
    manatee mandrill mantis marlin marmoset marmot marten meerkat mink mole mongoose moose moth mouse mule mussel
    narwhal newt nightjar numbat ocelot octopus okapi orca oriole osprey otter owl ox oyster panda panther parrot
    peacock pelican penguin perch pheasant pigeon pike plover pony porcupine possum puffin puma puppy python quail
    quokka rabbit raccoon ram raven reindeer robin rook salamander salmon sandpiper seahorse seal serval shark
    sheep shrew shrimp skink skylark sloth snail sparrow spaniel squid squirrel stallion starfish starling stoat
    stork swallow swan swift tapir tern thrush tiger toad tortoise toucan trout tuna turtle viper vole wallaby
    walrus warbler wasp weasel whale wolf wombat woodpecker wren yak zebra
"""


def random_name() -> str:
    """Return two words with a hyphen; there are 56,224 names."""
    chance = random.SystemRandom()  # neither a user's seed nor a fork repeats a name
    return f"{chance.choice(_QUALITIES.split())}-{chance.choice(_ANIMALS.split())}"
