"""The numbers that two Chinese reviews of the field give: Yin, Wang, Wang 2015 (the survey), and a history of 2018."""
