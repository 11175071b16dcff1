//! Words of our own choosing for keys, lists and filler. All are lower case, and no word is in
//! another one or in two lists: answers are looked for in texts, where `owl` would be found in `bowl`.

/// Adjectives.
#[rustfmt::skip]
pub const ADJECTIVES: &[&str] = &[
    "absent", "active", "ancient", "awake", "bare", "bashful", "bitter", "blank", "blunt", "bold", "brave", "brief", "brisk",
    "broad", "calm", "careful", "cheerful", "civil", "clean", "clumsy", "coarse", "cosy", "crisp", "crooked", "crowded",
    "curious", "damp", "daring", "dense", "dim", "distant", "dizzy", "drowsy", "dull", "dusty", "eager", "earnest", "elegant",
    "fair", "faithful", "famous", "fancy", "feeble", "fierce", "firm", "flat", "foggy", "formal", "frail", "frank", "fresh", "friendly",
    "frosty", "gentle", "giant", "glad", "gloomy", "graceful", "grand", "grateful", "greedy", "grim", "hardy", "harsh", "hasty",
    "hollow", "honest", "humble", "hungry", "icy", "idle", "jolly", "keen", "lazy", "lively", "lofty", "lonely", "loyal",
    "lucky", "mellow", "merry", "mild", "modest", "muddy", "narrow", "neat", "nimble", "noble", "noisy", "odd", "orderly", "patient",
    "peculiar", "pleasant", "polite", "proud", "puzzled", "quaint", "quick", "quiet", "rapid", "rare", "ready", "restless", "rigid",
    "rough", "round", "rusty", "secret", "serious", "shallow", "sharp", "shy", "silent", "simple", "sincere", "sleepy", "slender",
    "smooth", "solid", "sour", "spare", "steady", "steep", "stern", "stiff", "stout", "strict", "stubborn", "sturdy", "subtle",
    "sudden", "swift", "tall", "tame", "tender", "thick", "thin", "tidy", "timid", "tired", "tough", "unusual", "upright", "useful",
    "vague", "vast", "vivid", "warm", "weary", "wet", "wicked", "wide", "wild", "wise", "witty", "wooden", "worthy", "young", "zealous",
];

/// Nouns.
#[rustfmt::skip]
pub const NOUNS: &[&str] = &[
    "acorn", "anchor", "apple", "apron", "artist", "attic", "autumn", "axe", "badge", "baker", "balcony",
    "ballad", "banker", "banner", "barge", "barley", "barn", "barrel", "basin", "basket", "beach", "beacon", "beaver", "bell", "bench",
    "berry", "boat", "bonnet", "border", "bottle", "boulder", "bowl", "branch", "brick", "bridge", "broom", "brother", "bucket",
    "builder", "bundle", "butcher", "button", "cabinet", "camel", "camera", "canal", "candle", "canoe", "canyon", "captain",
    "carpet", "carriage", "castle", "cavern", "ceiling", "cellar", "chain", "chair", "chapel", "cheese", "cherry", "chimney", "circus",
    "clerk", "cliff", "cloak", "clock", "closet", "clover", "coast", "collar", "compass", "copper", "corner", "cottage", "cotton",
    "cousin", "cradle", "creek", "crown", "curtain", "cushion", "dagger", "dairy", "dancer", "dealer", "desert", "desk", "diary", "doctor",
    "donkey", "drawer", "drum", "eagle", "editor", "elbow", "engine", "envelope", "evening", "fabric", "factory", "farmer",
    "feather", "fence", "ferry", "fiddle", "field", "finger", "fireplace", "flag", "flame", "flute", "folder", "forest", "fountain",
    "fox", "frame", "gallery", "garage", "garden", "gate", "giraffe", "glacier", "glove", "goat", "granary", "grape", "guard", "guest",
    "guitar", "hammer", "handle", "harbour", "harvest", "hedge", "helmet", "heron", "highway", "hill", "horizon", "hotel", "house",
    "hunter", "inn", "iron", "island", "jacket", "jar", "jewel", "judge", "jug", "kettle", "kitchen", "kite", "ladder", "lake", "lamp",
    "lantern", "lawyer", "ledge", "lemon", "letter", "library", "lily", "lion", "lizard", "locket", "lodge", "lumber",
    "mantle", "market", "mason", "mast", "meadow", "medal", "melon", "merchant", "mill", "miner", "mirror", "mitten", "monk", "moon",
    "morning", "moss", "motor", "mountain", "museum", "napkin", "needle", "neighbour", "nephew", "notebook", "nurse", "ocean",
    "officer", "orchard", "organ", "oven", "paddle", "palace", "parade", "parcel", "parlour", "parrot", "pastry", "path", "peach",
    "pebble", "pencil", "piano", "picture", "pigeon", "pillar", "pillow", "pilot", "pirate", "planet", "plank", "plaza", "plough",
    "pocket", "poet", "pond", "porch", "postcard", "potter", "prairie", "prince", "printer", "prison", "pumpkin", "puppet", "quarry",
    "quilt", "rabbit", "railing", "raven", "recipe", "ribbon", "river", "robin", "rocket", "roof", "rope", "rug", "saddle",
    "sailor", "salmon", "sandal", "satchel", "scholar", "school", "scissors", "sculptor", "season", "shadow", "shed", "shelf", "shepherd",
    "shoe", "shore", "shovel", "singer", "sister", "slipper", "smith", "soldier", "spade", "sparrow", "spider", "spoon", "squirrel",
    "statue", "stocking", "stone", "storm", "stove", "stranger", "stream", "street", "student", "summer", "summit", "swan",
    "table", "tailor", "teacher", "temple", "tent", "theatre", "thimble", "thread", "ticket", "tiger", "tower", "tractor", "train",
    "traveller", "treasure", "trumpet", "tunnel", "turtle", "uncle", "valley", "vase", "vessel", "village", "violin", "visitor", "waggon",
    "waiter", "wall", "walnut", "wardrobe", "weaver", "wheat", "wheel", "whistle", "widow", "willow", "window", "winter", "wizard",
    "wolf", "workshop", "writer", "yard", "zebra",
];

/// Verbs that take an object and whose past is formed with -ed alone.
#[rustfmt::skip]
pub const VERBS: &[&str] = &[
    "accept", "adapt", "address", "adopt", "alarm", "answer", "approach", "assist", "attend", "avoid", "award", "block",
    "borrow", "brush", "burn", "call", "check", "clear", "climb", "collect", "comfort", "command", "connect", "consider", "cover",
    "crush", "defend", "deliver", "design", "direct", "display", "doubt", "enjoy", "enter", "expect", "explain", "fasten",
    "fetch", "film", "finish", "fix", "flood", "follow", "forward", "gather", "greet", "haunt", "help", "inspect", "invent",
    "join", "kick", "launch", "learn", "lift", "load", "match", "melt", "mend", "mention", "miss", "obey", "offend", "open",
    "paint", "pick", "plant", "polish", "present", "press", "protect", "pull", "push", "reach", "record",
    "reflect", "regard", "remember", "repair", "repeat", "report", "respect", "reward", "roast", "search", "select",
    "shelter", "sketch", "spoil", "stain", "support", "test", "touch", "trust", "turn", "warn", "wash", "watch",
    "whisper", "yield",
];
