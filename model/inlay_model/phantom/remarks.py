"""Sentences that a clinician may lock and that the phantom grammar does not know.

They stand among the locked text of some training examples, so that the model also writes well around text that it
would never write itself. They state nothing about the phantom.
"""

REMARKS: tuple[str, ...] = (
    "Comparison is made with the previous radiograph.",
    "No previous imaging is available for comparison.",
    "Clinical correlation is advised.",
    "The patient is slightly rotated.",
    "Inspiration is limited.",
    "The study is of adequate quality.",
    "The costophrenic angles are included.",
    "Findings were discussed with the referring physician.",
    "Further evaluation with computed tomography is recommended.",
    "Follow up in three months is suggested.",
    "The examination was performed in the supine position.",
    "Degenerative change is noted in the thoracic spine.",
    "The upper abdomen is unremarkable.",
    "Surgical clips project over the axilla.",
    "The aorta is tortuous.",
    "Calcified granulomas are unchanged.",
    "Breast shadows overlie the lower zones.",
    "A skin fold mimics a pleural line.",
    "Please see the separate report of the abdomen.",
    "The hilar contours are stable.",
    "Emphysematous change is likely.",
    "Old healed injuries are not described.",
    "This was reviewed by a second reader.",
    "Urgent review was requested by the ward.",
    "The technique was a single portable view.",
    "Exposure is slightly high.",
    "Sternal wires are aligned.",
    "An enteric drain passes below the diaphragm.",
    "Subsegmental atelectasis is unchanged since last week.",
    "Interval improvement compared with yesterday.",
)
