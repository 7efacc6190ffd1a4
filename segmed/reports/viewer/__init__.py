"""The viewer of a page: volumes within the page, slices in three planes, nothing to install and nothing to load.

What exists was looked at first. ipyniivue 2.4 brings NiiVue as an anywidget front end of 5 MB: it draws what a running
kernel sends it, by WebGL2, and writes no page of its own, so it serves in notebooks (`segmed.view`) and not in a file
that is mailed. nilearn's `view_img` writes a page without a network, yet of one map over one image: it interpolates
both to cubes, so that a thick stack shows slices that were never measured, and has neither contours nor two label
maps nor a window to drag; and nilearn would be one more dependency. So the viewer is a file of plain JavaScript.
"""
