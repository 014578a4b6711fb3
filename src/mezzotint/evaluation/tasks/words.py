"""The small vocabulary that the built-in tasks speak."""

NAMES = "Ada Ben Cora Dan Eve Finn Gia Hugo Ida Jon Kim Leo Mia Ned Ora Pam Ravi Sue Tom Uma Vic Wes Yan Zoe".split()

ITEMS = "apples beads books boxes cards coins cups eggs flags hats keys lamps maps nuts pears pens plums rings rocks shells socks stamps toys tulips".split()

KEYS = (
    "amber anchor apron arrow atlas badge barrel basin beacon bridge bronze cabin cactus camel candle canyon castle cedar cherry cliff cloud clover cobalt "
    "comet copper coral cotton crater crystal delta desert diamond dune eagle ember engine falcon feather fern flame forest fossil fox garden ginger glacier "
    "granite harbor hazel heron honey indigo iris island ivory jade jasmine kettle lagoon lantern laurel lemon lily linen lotus magnet maple marble meadow "
    "melon mirror mint moon moss nectar needle ocean olive onyx opal orchid otter oyster panda pearl pebble pepper pine planet plaza pollen prism quartz "
    "quill rabbit raven reef ribbon ridge river robin saddle saffron salt satin shadow silver sparrow spruce storm summit tango temple thistle thunder tiger "
    "timber topaz tulip tunnel turtle valley velvet violet walnut willow winter zebra zenith"
).split()
